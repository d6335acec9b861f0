"""safetensors files, sound and hostile."""

from __future__ import annotations

import json
import struct
import weakref

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxmodels.convert import tensors
from jaxmodels.convert.tensors import INDEX, names, open_file, open_folder, shards, write_file

pytestmark = pytest.mark.fast

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.int64)


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def raw(path, header, data=b"\0" * 24, *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def write(path, **arrays):
    write_file(path, {name: (x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()})
    return path


def test_the_safetensors_library_reads_what_is_written_and_the_other_way_round(tmp_path):
    got = load_file(write(tmp_path / "a.safetensors", a=A, turned=A.T, b=B))
    np.testing.assert_array_equal(got["turned"], A.T)
    np.testing.assert_array_equal(got["b"], B)
    save_file({"a": A, "b": B, "none": np.zeros((0, 3), np.float16)}, tmp_path / "b.safetensors")
    back = {name: tensor.read() for name, tensor in open_file(tmp_path / "b.safetensors").items()}
    np.testing.assert_array_equal(back["a"], A)
    np.testing.assert_array_equal(back["b"], B)
    assert back["none"].shape == (0, 3)


def test_values_of_sixteen_bits_keep_their_bits(tmp_path):
    x = A.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(open_file(write(tmp_path / "a.safetensors", x=x))["x"].read(), x)


UNSOUND = {  # the safetensors library refuses these
    "no header": (b"", {}),
    "a header longer than the file": ({"a": entry()}, {"length": 10**6}),
    "no JSON": (b"{nonsense", {}),
    "a list": (b"[]", {}),
    "deep nesting": (b"[" * 100_000, {}),
    "no text": (b"\xff\xfe", {}),
    "values beyond the end": ({"a": entry(offsets=(0, 24))}, {"data": b"\0" * 20}),
    "bytes behind the end": ({"a": entry()}, {"data": b"\0" * 30}),
    "a hole": ({"a": entry(offsets=(4, 28))}, {"data": b"\0" * 28}),
    "an overlap": ({"a": entry(), "b": entry(offsets=(0, 24))}, {}),
    "a shape that does not fit the offsets": ({"a": entry(shape=(2, 4))}, {}),
    "a shape whose product overflows": ({"a": entry(shape=(2**62, 4))}, {}),
    "a negative shape": ({"a": entry(shape=(-2, -3))}, {}),
    "a shape of words": ({"a": entry(shape=("2", "3"))}, {}),
    "true as a length": ({"a": entry(shape=(True, 6))}, {}),
    "offsets out of order": ({"a": entry(offsets=(24, 0))}, {}),
    "three offsets": ({"a": entry(offsets=(0, 24, 24))}, {}),
    "an unknown type": ({"a": entry(dtype="PICKLE")}, {}),
    "a list as type": ({"a": entry(dtype=["F32"])}, {}),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, {}),
    "metadata of words": ({"a": entry(), "__metadata__": "x"}, {}),
    "metadata of numbers": ({"a": entry(), "__metadata__": {"x": 1}}, {}),
}
TWICE = json.dumps({"a": entry(), "b": entry()}).replace('"b"', '"a"').encode()
STRANGE = {  # it accepts these, so they are refused here
    "the same name twice": (TWICE, b"\0" * 24, "a key twice in an object"),
    "a name that leads out": ({"../a": entry()}, b"\0" * 24, r"got a tensor named '../a'; expected"),
    "an absolute name": ({"/etc/a": entry()}, b"\0" * 24, "got a tensor named '/etc/a'"),
    "a name with a zero byte": ({"a\0b": entry()}, b"\0" * 24, "got a tensor named"),
    "a type that NumPy has not": (
        {"a": entry("F8_E5M2", (24,))},
        b"\0" * 24,
        "got the type 'F8_E5M2' of 'a'",
    ),
    "more axes than NumPy has": ({"a": entry(shape=(1,) * 90, offsets=(0, 4))}, b"\0" * 4, "got the shape"),
    "a length beyond NumPy's": ({"a": entry(shape=(2**63, 0), offsets=(0, 0))}, b"", "got the shape"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_file_that_the_library_refuses_is_refused_with_one_clear_error(tmp_path, name):
    header, how = UNSOUND[name]
    path = raw(tmp_path / "a.safetensors", header, **({"data": b"\0" * 24} | how))
    message = (
        r"got a file that the safetensors library refuses \(.*\); expected a sound .* Get the file again"
    )
    with pytest.raises(ValueError, match=message) as caught:
        open_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", STRANGE)
def test_what_the_library_accepts_and_we_cannot_use_safely_is_refused(tmp_path, name):
    header, data, message = STRANGE[name]
    path = raw(tmp_path / "a.safetensors", header, data)
    with safe_open(path, framework="numpy") as file:
        assert len(file.keys()) == 1
    with pytest.raises(ValueError, match=message) as caught:
        open_file(path)
    assert str(path) in str(caught.value)


def test_a_header_of_exabytes_is_not_read(tmp_path):
    path = raw(tmp_path / "a.safetensors", {"a": entry()}, length=2**63)
    with pytest.raises(
        ValueError, match="got a header of 9,223,372,036,854,775,808 bytes, more than 16,777,216"
    ):
        open_file(path)


def test_a_file_of_more_tensors_than_any_model_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "TENSORS", 2)
    path = write(tmp_path / "a.safetensors", a=A, b=B, c=A)
    with pytest.raises(ValueError, match="got 3 tensors, more than 2; expected"):
        open_file(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "a.safetensors", a=A, b=B).read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            open_file(tmp_path / "cut.safetensors")


def folder(tmp_path, index, **files):
    for name, arrays in files.items():
        write(tmp_path / f"{name}.safetensors", **arrays)
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def test_shards_are_read_as_one(tmp_path):
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    found = open_folder(folder(tmp_path, index, one={"a": A}, two={"b": B}))
    np.testing.assert_array_equal(found["b"].read(), B)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"weight_map": {"a": "../one.safetensors"}},
            "got the shard '../one.safetensors'; expected the name of a file beside",
        ),
        ({"weight_map": {"a": "/etc/passwd"}}, "got the shard"),
        ({"weight_map": {"a": "x/one.safetensors"}}, "got the shard"),
        ({"weight_map": {"a": ".."}}, "got the shard"),
        ({"weight_map": {"a": "x" * 5000}}, "got the shard"),
        ({"weight_map": {"a": 3}}, "got no weight_map"),
        ({"weights": {}}, "got no weight_map"),
        ({"weight_map": {"b": "one.safetensors"}}, "got no tensor 'b'; expected it there by"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, index, message):
    with pytest.raises(ValueError, match=message):
        open_folder(folder(tmp_path, index, one={"a": A}))


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"two.safetensors: got no file; expected a shard, as model.safetensors.index.json names it",
    ):
        open_folder(
            folder(tmp_path, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, one={"a": A})
        )


def test_a_tensor_that_the_index_does_not_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one.safetensors: got the tensor 'b'; expected those that"):
        open_folder(folder(tmp_path, {"weight_map": {"a": "one.safetensors"}}, one={"a": A, "b": B}))


def test_a_folder_without_weights_says_what_it_lacks(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(
        FileNotFoundError,
        match=r"got neither model.safetensors nor .*; expected weights as safetensors \(pickles of torch are",
    ):
        open_folder(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_file(
            tmp_path / "a.safetensors", {"a": (A.shape, A.dtype, lambda: A), "b": (B.shape, B.dtype, fail)}
        )
    assert not list(tmp_path.iterdir())


def test_one_tensor_at_a_time_is_in_memory_while_a_file_is_written(tmp_path):
    """The library's save_file takes a dict of all of them."""
    made = []

    def give():
        assert sum(x() is not None for x in made) <= 1  # the one before is bound until this one replaces it
        x = A.copy()
        made.append(weakref.ref(x))
        return x

    write_file(tmp_path / "a.safetensors", dict.fromkeys("abcd", (A.shape, A.dtype, give)))
    assert len(open_file(tmp_path / "a.safetensors")) == 4


def test_a_tensor_is_mapped_and_not_copied(tmp_path):
    x = open_file(write(tmp_path / "a.safetensors", a=A))["a"].read()
    assert isinstance(x, np.memmap) and not x.flags.writeable
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        copy = file.get_tensor("a")
    assert not isinstance(copy, np.memmap) and not isinstance(copy.base, np.memmap)


def test_shards_stay_within_their_limit_where_they_can():
    groups = shards({"a": 4, "b": 5, "c": 20, "d": 1, "e": 8}, 10)
    assert groups == [["a", "b"], ["c"], ["d", "e"]]
    assert names(groups)[1] == "model-00002-of-00003.safetensors"
    assert names([["a"]]) == ["model.safetensors"]
