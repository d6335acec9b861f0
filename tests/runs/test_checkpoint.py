"""A checkpoint is complete or invisible, and a damaged one is named, set aside and never used."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import checkpoint_writer, lock
from jaxmodels.runs.checkpoint import Checkpoints, Damaged

pytestmark = pytest.mark.fast

NOTE = {"metrics": {"test/loss": 0.25}, "best": None, "names": [], "interval": []}


def state(scale: float = 1.0):
    return {
        "params": {
            "kernel": scale * jnp.arange(12.0).reshape(4, 3),
            "bias": jnp.full(3, scale, jnp.bfloat16),
        },
        "key": jax.random.key(7),
        "step": jnp.asarray(3, jnp.int32),
    }


def abstract(tree, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
    )


def leaves(tree) -> list[bytes]:
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree
    )
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(plain)]


def save(folder: Path, *steps: int, keep: int = 9, best: int | None = None) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, state(step), {**NOTE, "step": step}, best=step == best)
    checkpoints.close()
    return checkpoints


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """Checkpoints of steps 1, 2 and 3; not to be changed."""
    folder = tmp_path_factory.mktemp("three")
    save(folder, 1, 2, 3)
    return folder


@pytest.fixture
def copy(three, tmp_path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "copy"))


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
def test_what_is_restored_is_what_was_saved_with_types_keys_and_note(three):
    n, got, note = Checkpoints(three).restore(abstract(state()))
    assert n == 3
    assert leaves(got) == leaves(state(3))
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, state())
    assert note == {**NOTE, "step": 3}


@pytest.mark.slow
def test_a_checkpoint_is_restored_onto_another_mesh(three):
    mesh = make_mesh("data=2,fsdp=2")
    split = {
        "params": {"kernel": PartitionSpec("fsdp"), "bias": PartitionSpec()},
        "key": PartitionSpec(),
        "step": PartitionSpec(),
    }
    like = jax.tree.map(
        lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)),
        state(),
        split,
    )
    _, got, _ = Checkpoints(three).restore(like)
    assert got["params"]["kernel"].sharding.spec == PartitionSpec("fsdp")
    assert leaves(got) == leaves(state(3))


@pytest.mark.slow
def test_the_newest_ones_and_the_best_stay(tmp_path):
    checkpoints = save(tmp_path, 1, 2, 3, 4, 5, keep=2, best=2)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best() == 2


@pytest.mark.slow
def test_a_new_best_lets_the_old_one_go(tmp_path):
    save(tmp_path, 1, keep=1, best=1)
    checkpoints = save(tmp_path, 2, 3, keep=1, best=3)
    assert checkpoints.steps() == [3]
    assert checkpoints.best() == 3


def test_a_mark_on_a_best_one_that_is_not_there_yet_counts_as_none(copy):
    (copy / "best").write_text("4")
    assert Checkpoints(copy).best() is None
    assert save(copy, 4, 5, 6, keep=1, best=4).steps() == [4, 6]


def test_nothing_is_seen_of_a_checkpoint_before_it_is_complete(tmp_path, monkeypatch):
    reached, go_on, real = threading.Event(), threading.Event(), checkpoint_writer.digests_of

    def slow(folder):
        reached.set()
        go_on.wait(10)
        return real(folder)

    monkeypatch.setattr("jaxmodels.runs.checkpoint_writer.digests_of", slow)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), NOTE)
    assert reached.wait(10)
    during = checkpoints.steps()
    go_on.set()
    checkpoints.close()
    assert (during, checkpoints.steps()) == ([], [1])


def test_saving_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr("jaxmodels.runs.checkpoint_writer.sync", lambda path: go_on.wait(10))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), NOTE)  # returns though the disk does not answer
    assert checkpoints.steps() == []
    go_on.set()
    checkpoints.close()
    assert checkpoints.steps() == [1]


def test_what_a_killed_process_left_is_removed(copy):
    (copy / ".saving-4" / "state").mkdir(parents=True)
    Checkpoints(copy).clean()
    assert sorted(p.name for p in copy.iterdir()) == ["1", "2", "3"]


def test_the_manifest_covers_every_file(three):
    written = {str(p.relative_to(three / "3")) for p in files(three / "3")}
    assert set(json.loads((three / "3" / "manifest.json").read_text())) == written - {"manifest.json"}


def test_without_checkpoints_nothing_is_restored(tmp_path):
    assert Checkpoints(tmp_path / "absent").restore(abstract(state())) is None


# Damage


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "zeroed", "deleted", "empty"])
def test_damage_to_any_file_is_found_and_the_file_named(three, tmp_path, damage):
    for i, original in enumerate(files(three / "3")):
        folder = Path(shutil.copytree(three, tmp_path / str(i)))
        path = folder / original.relative_to(three)
        content = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes({"truncated": content[:-1], "zeroed": bytes(len(content)), "empty": b""}[damage])
        if path.exists() and path.read_bytes() == content:
            continue  # there was nothing to take away
        with pytest.raises(Damaged, match=path.name.replace(".", r"\.")):
            Checkpoints(folder).verify(3)


@pytest.mark.slow
def test_no_flipped_bit_goes_unnoticed(three, tmp_path):
    """200 of them, over all files alike, and some of the manifest's."""
    draw, folder = random.Random(0), Path(shutil.copytree(three / "3", tmp_path / "3"))
    paths = [p for p in files(folder) if p.stat().st_size]
    manifest = folder / "manifest.json"
    flips = [(path, draw.randrange(8 * path.stat().st_size)) for path in (paths * 200)[:200]]
    flips += [(manifest, bit) for bit in range(0, 8 * manifest.stat().st_size, 97)]
    for path, bit in flips:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(Damaged):
            Checkpoints(tmp_path).verify(3)
        path.write_bytes(content)
    Checkpoints(tmp_path).verify(3)


def test_a_damaged_newest_is_named_and_set_aside_and_the_one_before_it_used(copy):
    broken = files(copy / "3" / "state")[0]
    broken.write_bytes(b"x" + broken.read_bytes())
    said: list[str] = []
    n, got, note = Checkpoints(copy, warn=said.append).restore(abstract(state()))
    assert (n, note["step"]) == (2, 2)
    assert leaves(got) == leaves(state(2))
    assert sorted(p.name for p in copy.iterdir()) == ["1", "2", "damaged-3"]
    assert len(said) == 1
    assert broken.name in said[0] and "damaged-3" in said[0] and "step 2" in said[0]


def test_a_checkpoint_without_its_manifest_is_damaged_and_not_absent(copy):
    (copy / "3" / "manifest.json").unlink()
    said: list[str] = []
    assert Checkpoints(copy, warn=said.append).restore(abstract(state()))[0] == 2
    assert "manifest.json" in said[0]


def test_with_all_damaged_it_stops_and_says_each(copy):
    for n in (1, 2, 3):
        (copy / str(n) / "note.json").write_text("{}")
    for _ in range(2):  # a second attempt must not take the folder for an empty one
        with pytest.raises(
            Damaged, match=r"no sound checkpoint is left.*checkpoint 3.*checkpoint 2.*checkpoint 1.*--fresh"
        ):
            Checkpoints(copy).restore(abstract(state()))


def test_a_damaged_one_that_was_asked_for_is_not_replaced_by_another(copy):
    (copy / "2" / "note.json").unlink()
    with pytest.raises(Damaged, match=r"note.json is missing.*1, 3"):
        Checkpoints(copy).restore(abstract(state()), 2)
    assert (copy / "2").is_dir()


def test_a_state_of_other_shapes_is_refused(three):
    like = abstract(state() | {"params": {"kernel": jnp.zeros((5, 3)), "bias": jnp.zeros(3, jnp.bfloat16)}})
    with pytest.raises(
        ValueError, match=r"does not fit.*: params/kernel is float32\[4, 3\] there and float32\[5, 3\] here\."
    ):
        Checkpoints(three).restore(like)


def test_a_state_with_other_names_is_refused(three):
    like = abstract(state() | {"params": {"kernel": jnp.zeros((4, 3)), "offset": jnp.zeros(3, jnp.bfloat16)}})
    with pytest.raises(
        ValueError, match=r"params/bias is bfloat16\[3\] there and absent here; params/offset is absent there"
    ):
        Checkpoints(three).restore(like)


def test_a_state_of_other_types_is_refused_and_not_cast(three):
    like = abstract(
        state() | {"params": {"kernel": jnp.zeros((4, 3), jnp.bfloat16), "bias": jnp.zeros(3, jnp.bfloat16)}}
    )
    with pytest.raises(ValueError, match=r"params/kernel is float32\[4, 3\] there and bfloat16\[4, 3\] here"):
        Checkpoints(three).restore(like)


def test_a_failed_save_leaves_the_earlier_ones_and_is_said_at_the_next_wait(copy, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxmodels.runs.checkpoint_writer.sync", full)
    checkpoints = Checkpoints(copy)
    checkpoints.save(4, state(), NOTE)
    with pytest.raises(OSError, match=r"could not be written.*no space left on the device.*of step 3"):
        checkpoints.wait()
    monkeypatch.undo()
    assert sorted(p.name for p in copy.iterdir()) == ["1", "2", "3"]
    checkpoints.save(5, state(5), NOTE)
    checkpoints.close()
    assert checkpoints.restore(abstract(state()))[0] == 5


def test_a_save_that_cannot_begin_is_said_at_once(copy, monkeypatch):
    checkpoints = Checkpoints(copy)
    monkeypatch.setattr(
        Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(4, state(), NOTE)
    monkeypatch.undo()
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3]


# Identity


def test_one_that_was_renamed_or_copied_is_named_and_set_aside(copy):
    (copy / "3").rename(copy / "60")
    shutil.copytree(copy / "1", copy / "50")
    said: list[str] = []
    assert Checkpoints(copy, warn=said.append).restore(abstract(state()))[0] == 2
    assert "checkpoint 60: it is that of step 3, renamed or copied; expected that of step 60" in said[0]
    assert "checkpoint 50: it is that of step 1" in said[1]
    assert sorted(p.name for p in copy.iterdir()) == ["1", "2", "damaged-50", "damaged-60"]


def test_one_of_another_run_is_refused(tmp_path):
    for run, step in (("a", 1), ("b", 2)):
        checkpoints = Checkpoints(tmp_path / run, run=run)
        checkpoints.save(step, state(step), NOTE)
        checkpoints.close()
    shutil.copytree(tmp_path / "b" / "2", tmp_path / "a" / "2")
    said: list[str] = []
    assert Checkpoints(tmp_path / "a", run="a", warn=said.append).restore(abstract(state()))[0] == 1
    assert "checkpoint 2: it was saved by another run (b); expected one of this run (a)" in said[0]
    shutil.rmtree(tmp_path / "a" / "1")
    with pytest.raises(Damaged, match=r"no sound checkpoint is left.*another run|no sound checkpoint"):
        (tmp_path / "a" / "damaged-2").rename(tmp_path / "a" / "2")
        Checkpoints(tmp_path / "a", run="a").restore(abstract(state()))


def test_an_additional_file_or_a_link_is_damage(copy):
    (copy / "3" / "state" / "more").write_text("")
    with pytest.raises(Damaged, match="file state/more is there; the manifest does not list it"):
        Checkpoints(copy).verify(3)
    (copy / "2" / "note.json").rename(copy / "note")
    (copy / "2" / "note.json").symlink_to(copy / "note")
    with pytest.raises(Damaged, match=r"note.json is a link"):
        Checkpoints(copy).verify(2)


def test_one_that_does_not_say_whose_it_is_is_refused(copy):
    folder = copy / "3"
    (folder / "identity.json").unlink()
    listed = json.loads((folder / "manifest.json").read_text())
    del listed["identity.json"]
    (folder / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(
        Damaged, match=r"identity.json is missing.*development versions before 0.1 wrote none"
    ):
        Checkpoints(copy).verify(3)


def test_which_is_the_best_cannot_be_lost_to_a_kill(tmp_path, monkeypatch):
    """It is in the checkpoint, so complete with its rename; here the process ends right after that."""
    save(tmp_path, 1, best=1)
    monkeypatch.setattr(Checkpoints, "prune", lambda self: (_ for _ in ()).throw(OSError("killed")))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state(2), NOTE, best=True)
    with pytest.raises(OSError, match="killed"):
        checkpoints.close()
    monkeypatch.undo()
    assert Checkpoints(tmp_path).best() == 2


# Paths


@pytest.mark.parametrize("name", ["a[1]", "a]b", "a*", "a?", "a\\b", "a\udcff"])
def test_a_folder_that_orbax_takes_for_a_pattern_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"got a path with .*; expected one without \[ \] \* \? .*Choose another --folder"
    ):
        Checkpoints(tmp_path / name).save(1, state(), NOTE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a b", "a{b,c}", "a%20", "a$HOME'\"", "~", "-x", "日本", "a\nb", "a,b;c&d|e<f>#@!^`=+:"]
)
def test_any_other_folder_works(tmp_path, name):
    save(tmp_path / name, 1)
    assert leaves(Checkpoints(tmp_path / name).restore(abstract(state()))[1]) == leaves(state(1))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # futures that Orbax gave up, after the error
def test_what_cannot_be_opened_again_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmodels.runs.arrays.check_path", lambda *_, **__: None)
    checkpoints = Checkpoints(tmp_path / "a[1]")
    checkpoints.save(1, state(), NOTE)
    with pytest.raises(OSError, match="a checkpoint could not be written"):
        checkpoints.wait()
    assert checkpoints.steps() == []


# Readers


def parts(*names: str):
    return {name: abstract(state())[name] for name in names}


def test_some_of_the_parts_are_read_without_the_others(three):
    n, got, _ = Checkpoints(three).read(parts("params", "step"))
    assert n == 3 and set(got) == {"params", "step"}
    assert leaves(got) == leaves({name: state(3)[name] for name in ("params", "step")})
    assert leaves(Checkpoints(three).read(parts("key", "params", "step"), 2)[1]) == leaves(state(2))


@pytest.mark.slow
def test_a_reader_takes_the_best_and_renames_nothing(tmp_path):
    save(tmp_path, 1, 2, 3, 4, best=2)
    assert Checkpoints(tmp_path).read(parts("params"))[0] == 2
    (tmp_path / "2" / "note.json").unlink()
    with pytest.raises(Damaged, match=r"note.json is missing.*1, 3, 4; choose with --step"):
        Checkpoints(tmp_path).read(parts("params"))
    shutil.rmtree(tmp_path / "2")
    (tmp_path / "4" / "note.json").unlink()
    said: list[str] = []
    assert Checkpoints(tmp_path, warn=said.append).read(parts("params"))[0] == 3
    assert "using that of step 3" in said[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3", "4"]


def test_what_is_being_read_stays_until_it_was_read(copy):
    handle = lock.hold(copy / "1")
    checkpoints = save(copy, 4, keep=1)
    assert checkpoints.steps() == [1, 4]
    os.close(handle)
    assert save(copy, 5, keep=1).steps() == [5]
    assert lock.hold(copy / "4") is None


@pytest.mark.slow
@pytest.mark.parametrize("saves", first(1, [12, 300]))
def test_no_read_fails_while_a_run_saves_each_step_and_keeps_one(tmp_path, saves):
    checkpoints, over, failed, reads = Checkpoints(tmp_path, keep=1), threading.Event(), [], []
    checkpoints.save(0, state(0), NOTE)
    checkpoints.wait()

    def look():
        reader = Checkpoints(tmp_path, warn=failed.append)
        while not over.is_set():
            try:
                n, got, _ = reader.read(parts("params"))
                assert leaves(got) == leaves({"params": state(n)["params"]})
                reads.append(n)
            except Exception as error:
                failed.append(repr(error))

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(1, saves):
        checkpoints.save(n, state(n), NOTE)
    checkpoints.close()
    over.set()
    thread.join()
    assert not failed, failed[:3]
    assert len(reads) > 1
