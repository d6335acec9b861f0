"""safetensors files, sound and hostile."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from jaxmodels.convert.tensors import INDEX, names, open_file, open_folder, shards, write_file

pytestmark = pytest.mark.fast

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.int64)


def entry(dtype="F32", shape=(2, 3), places=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(places)}


def raw(path, header, data=b"\0" * 24, *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def write(path, **arrays):
    write_file(path, {name: (x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()})
    return path


def test_the_safetensors_library_reads_what_is_written_and_the_other_way_round(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    got = numpy.load_file(write(tmp_path / "a.safetensors", a=A, turned=A.T, b=B))
    np.testing.assert_array_equal(got["turned"], A.T)
    np.testing.assert_array_equal(got["b"], B)
    numpy.save_file({"a": A, "b": B, "none": np.zeros((0, 3), np.float16)}, tmp_path / "b.safetensors")
    back = {name: tensor.read() for name, tensor in open_file(tmp_path / "b.safetensors").items()}
    np.testing.assert_array_equal(back["a"], A)
    np.testing.assert_array_equal(back["b"], B)
    assert back["none"].shape == (0, 3)


def test_numbers_of_sixteen_bits_keep_their_bits(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = A.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(open_file(write(tmp_path / "a.safetensors", x=x))["x"].read(), x)


HOSTILE = {
    "no header": (b"", {}, "no sound JSON"),
    "a header longer than the file": (
        {"a": entry()},
        {"length": 10**6},
        "header should have 1,000,000 bytes",
    ),
    "a header of exabytes": ({"a": entry()}, {"length": 2**63}, "header should have"),
    "no JSON": (b"{nonsense", {}, "no sound JSON"),
    "a list": (b"[]", {}, "holds a JSON list; wanted an object"),
    "deep nesting": (b"[" * 100_000, {}, "no sound JSON"),
    "no text": (b"\xff\xfe", {}, "no sound JSON"),
    "the same name twice": (
        b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}',
        {},
        "a name occurs twice",
    ),
    "numbers beyond the end": ({"a": entry(places=(0, 24))}, {"data": b"\0" * 20}, "end at byte"),
    "bytes behind the end": ({"a": entry()}, {"data": b"\0" * 30}, "end at byte"),
    "a hole": ({"a": entry(places=(4, 28))}, {"data": b"\0" * 28}, "overlap, or leave a hole"),
    "an overlap": ({"a": entry(), "b": entry(places=(0, 24))}, {}, "overlap, or leave a hole"),
    "a shape that does not fill its place": ({"a": entry(shape=(2, 4))}, {}, "does not fill bytes"),
    "a shape whose product overflows": ({"a": entry(shape=(2**62, 4))}, {}, r"has shape|does not fill"),
    "a negative shape": ({"a": entry(shape=(-2, -3))}, {}, "has shape"),
    "a shape of words": ({"a": entry(shape=("2", "3"))}, {}, "has shape"),
    "true as a number": ({"a": entry(shape=(True, 6))}, {}, "has shape"),
    "places out of order": ({"a": entry(places=(24, 0))}, {}, "does not fill"),
    "three places": ({"a": entry(places=(0, 24, 24))}, {}, "has shape"),
    "an unknown type": ({"a": entry(dtype="PICKLE")}, {}, "known are F64"),
    "a list as type": ({"a": entry(dtype=["F32"])}, {}, "known are F64"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, {}, "has not dtype, shape"),
    "a name that leads out": ({"../a": entry()}, {}, "names a tensor '../a'"),
    "an absolute name": ({"/etc/a": entry()}, {}, "names a tensor"),
    "a name with a zero byte": ({"a\0b": entry()}, {}, "names a tensor"),
    "metadata of words": ({"a": entry(), "__metadata__": "x"}, {}, "metadata is no object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_one_clear_error(tmp_path, name):
    header, how, message = HOSTILE[name]
    path = raw(tmp_path / "a.safetensors", header, **({"data": b"\0" * 24} | how))
    with pytest.raises(ValueError, match=message) as caught:
        open_file(path)
    assert str(path) in str(caught.value)


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
    tensors = open_folder(folder(tmp_path, index, one={"a": A}, two={"b": B}))
    np.testing.assert_array_equal(tensors["b"].read(), B)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"weight_map": {"a": "../one.safetensors"}},
            "names the shard '../one.safetensors'; wanted the name of a file beside",
        ),
        ({"weight_map": {"a": "/etc/passwd"}}, "names the shard"),
        ({"weight_map": {"a": "x/one.safetensors"}}, "names the shard"),
        ({"weight_map": {"a": ".."}}, "names the shard"),
        ({"weight_map": {"a": "x" * 5000}}, "names the shard"),
        ({"weight_map": {"a": 3}}, "has no weight_map"),
        ({"weights": {}}, "has no weight_map"),
        ({"weight_map": {"b": "one.safetensors"}}, "lacks the tensor 'b'"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, index, message):
    with pytest.raises(ValueError, match=message):
        open_folder(folder(tmp_path, index, one={"a": A}))


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"two.safetensors is missing"):
        open_folder(
            folder(tmp_path, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, one={"a": A})
        )


def test_a_tensor_that_the_index_does_not_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not name 'b'"):
        open_folder(folder(tmp_path, {"weight_map": {"a": "one.safetensors"}}, one={"a": A, "b": B}))


def test_a_folder_without_weights_says_what_it_lacks(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(
        FileNotFoundError,
        match=r"wanted weights as safetensors \(files of torch that have to be unpickled are",
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


def test_shards_stay_within_their_limit_where_they_can():
    groups = shards({"a": 4, "b": 5, "c": 20, "d": 1, "e": 8}, 10)
    assert groups == [["a", "b"], ["c"], ["d", "e"]]
    assert names(groups)[1] == "model-00002-of-00003.safetensors"
    assert names([["a"]]) == ["model.safetensors"]
