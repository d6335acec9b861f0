"""Dimensions: B batch, T tokens, L layers, M width, H width of a state, V vocabulary, K classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.layers.recurrent import Layer
from jaxmodels.models.rnn import RNN, RNNClassifier, lstm_large, lstm_medium

B, T, V, M, L, K = 3, 6, 11, 8, 2, 4
SIZES = {"vocabulary": V, "width": M, "depth": L}
TOKENS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
CELLS = ["elman", "lstm", "gru"]

fast = pytest.mark.fast
every = pytest.mark.parametrize("cell", CELLS)


def randomised(model, tokens=TOKENS):
    """Parameters of which none is zero or one, as biases are at first."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
    random = np.random.default_rng(1)
    return jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape).astype(np.float32), shapes)


def count(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    return sum(x.size for x in jax.tree.leaves(shapes))


# The formulas


@pytest.mark.slow
@fast
@every
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
def test_layers_and_their_gradients_equal_torch(cell, bidirectional):
    """Two layers, one or two directions, values and the gradients of a random product of the outputs."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    H, inputs = 5, 7
    kind = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    theirs = kind(inputs, H, num_layers=2, bidirectional=bidirectional, batch_first=True)
    random = np.random.default_rng(2)
    x_BTM = random.normal(size=(B, T, inputs)).astype(np.float32)
    weight_BTH = random.normal(size=(B, T, H * (1 + bidirectional))).astype(np.float32)

    backs = ("", "_reverse")[: 1 + bidirectional]
    names = [f"l{i}{back}" for i in range(2) for back in backs]
    params = {}
    for name in names:
        ih, hh, b_ih, b_hh = (
            getattr(theirs, f"{what}_{name}").detach().numpy()
            for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        own = {"bias": b_ih, "bias_state": b_hh} if cell == "gru" else {"bias": b_ih + b_hh}
        params[name] = {"kernel_input": ih.T, "kernel_state": hh.T, **own}

    def ours(params, x_BTM):
        for i in range(2):
            layers = [Layer(cell, H, reverse=back != "").apply for back in backs]
            parts = [
                f({"params": params[f"l{i}{back}"]}, x_BTM)[0] for f, back in zip(layers, backs, strict=True)
            ]
            x_BTM = jnp.concatenate(parts, -1)
        return x_BTM

    x = torch.tensor(x_BTM, requires_grad=True)
    y = theirs(x)[0]
    (y * torch.tensor(weight_BTH)).sum().backward()
    np.testing.assert_allclose(jax.jit(ours)(params, x_BTM), y.detach().numpy(), atol=1e-5)
    grads, dx_BTM = jax.jit(jax.grad(lambda p, x: (ours(p, x) * weight_BTH).sum(), (0, 1)))(params, x_BTM)
    np.testing.assert_allclose(dx_BTM, x.grad.numpy(), atol=1e-5)
    pairs = {
        "kernel_input": "weight_ih",
        "kernel_state": "weight_hh",
        "bias": "bias_ih",
        "bias_state": "bias_hh",
    }
    for name in names:
        for mine, other in pairs.items():
            if mine in grads[name]:
                want = getattr(theirs, f"{other}_{name}").grad.numpy()
                np.testing.assert_allclose(grads[name][mine], want.T, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@fast
def test_the_last_states_equal_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(M, M, batch_first=True)
    ih, hh, b_ih, b_hh = (x.detach().numpy() for x in theirs.parameters())
    params = {"kernel_input": ih.T, "kernel_state": hh.T, "bias": b_ih + b_hh}
    x_BTM = np.random.default_rng(2).normal(size=(B, T, M)).astype(np.float32)
    _, states = Layer("lstm", M).apply({"params": params}, x_BTM)
    for mine, other in zip(states, theirs(torch.tensor(x_BTM))[1], strict=True):
        np.testing.assert_allclose(mine, other[0].detach().numpy(), atol=1e-5)


def numpy_lstm(p, tokens_T):
    """Logits of one sequence, in float64, token by token and gate by gate."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x_TM = p["embed"]["embedding"][tokens_T]
    for i in range(L):
        layer, h, c, out = p[f"layer_{i}"], np.zeros(M), np.zeros(M), []
        for x in x_TM:
            sums = x @ layer["kernel_input"] + h @ layer["kernel_state"] + layer["bias"]
            enter, forget, new, leave = (sums[k * M : (k + 1) * M] for k in range(4))
            c = sigmoid(forget) * c + sigmoid(enter) * np.tanh(new)
            h = sigmoid(leave) * np.tanh(c)
            out.append(h)
        x_TM = np.stack(out)
    return x_TM @ p["embed"]["embedding"].T


@fast
def test_the_language_model_equals_the_formulas_in_numpy():
    variables = randomised(RNN(**SIZES))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    want = np.stack([numpy_lstm(p, tokens_T) for tokens_T in TOKENS])
    np.testing.assert_allclose(jax.jit(RNN(**SIZES).apply)(variables, TOKENS), want, rtol=1e-4, atol=1e-5)


# Sizes and the start


@fast
@pytest.mark.parametrize(
    ("cell", "layer"), [("elman", 2 * 64 + 8), ("lstm", 4 * (2 * 64 + 8)), ("gru", 3 * (2 * 64 + 2 * 8))]
)
def test_the_parameters_match_the_hand_count(cell, layer):
    """V M + L layers of width 8: a product with input and one with state for each gate, and biases."""
    assert count(RNN(**SIZES, cell=cell)) == 11 * 8 + 2 * layer
    assert count(RNN(**SIZES, cell=cell, tied=False)) == 2 * 11 * 8 + 2 * layer


@fast
def test_zarembas_sizes_match_the_hand_count():
    """2 V M + 2 (8 M^2 + 4 M)."""
    assert count(lstm_medium()) == 2 * 10_000 * 650 + 2 * (8 * 650**2 + 4 * 650) == 19_765_200
    assert count(lstm_large()) == 2 * 10_000 * 1500 + 2 * (8 * 1500**2 + 4 * 1500) == 66_012_000


@fast
def test_a_second_layer_in_both_directions_reads_twice_the_width():
    """V M, two GRUs that read M, two that read 2 M, the head on 2 M."""
    model = RNNClassifier(V, K, M, depth=2, cell="gru", bidirectional=True)
    first, second = 3 * (8 * 8 + 8 * 8 + 2 * 8), 3 * (16 * 8 + 8 * 8 + 2 * 8)
    assert count(model) == 11 * 8 + 2 * first + 2 * second + 16 * 4 + 4


@pytest.mark.slow
@fast
def test_forget_gates_start_at_a_bias_of_one_and_no_other_gate_does():
    p = jax.jit(RNN(**SIZES).init)(jax.random.key(0), TOKENS)["params"]
    np.testing.assert_array_equal(p["layer_1"]["bias"].reshape(4, M).T, np.tile([0, 1, 0, 0], (M, 1)))


@pytest.mark.slow
@fast
@every
def test_each_gates_matrix_of_the_state_starts_orthogonal(cell):
    p = jax.jit(RNN(**SIZES, cell=cell).init)(jax.random.key(0), TOKENS)["params"]
    for square in np.split(
        np.asarray(p["layer_0"]["kernel_state"]), p["layer_0"]["kernel_state"].shape[1] // M, axis=1
    ):
        np.testing.assert_allclose(square @ square.T, np.eye(M), atol=1e-5)


@pytest.mark.slow
@fast
def test_dropout_needs_keys_and_differs_between_examples():
    model = RNN(**SIZES, dropout=0.5)
    variables, same = randomised(model), np.tile(TOKENS[:1], (B, 1))
    apply = jax.jit(model.apply)
    plain = apply(variables, same)
    np.testing.assert_array_equal(plain, np.tile(plain[:1], (B, 1, 1)))
    random = apply(variables, same, jax.random.split(jax.random.key(0), B))
    assert np.abs(np.diff(random, axis=0)).max((1, 2)).min() > 1e-3


@fast
def test_states_stay_in_float32_where_products_are_in_bfloat16_and_do_not_grow():
    model = RNN(**SIZES, dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    logits, cache = jax.eval_shape(lambda v, c: model.apply(v, TOKENS, None, c), variables, model.start(B, 1))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves((variables, cache))} == {jnp.dtype(jnp.float32)}
    assert {x.shape for x in cache} == {(L, B, M)}  # whatever the length


@fast
def test_an_unknown_cell_is_refused():
    with pytest.raises(
        ValueError, match=r"got cell='lstn'; expected one of 'elman', 'lstm', 'gru'\. Do give cell='lstm'"
    ):
        jax.eval_shape(RNN(**SIZES, cell="lstn").init, jax.random.key(0), TOKENS)


@pytest.mark.slow
@fast
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(CELLS),
    st.booleans(),
)
def test_any_size_gives_logits_for_every_token(B, T, M, L, cell, tied):
    model = RNN(V, M, L, cell, tied=tied)
    logits = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((B, T), jnp.int32)))[
        0
    ]
    assert (logits.shape, logits.dtype) == ((B, T, V), jnp.float32)


# The classifier


@pytest.mark.slow
@fast
@every
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logit(cell, bidirectional, side):
    model = RNNClassifier(V, K, M, depth=2, cell=cell, bidirectional=bidirectional)
    variables = randomised(model)
    edge = ((0, 0), (3, 0) if side == "left" else (0, 3))
    got = jax.jit(model.apply)(
        variables,
        np.pad(TOKENS, edge, constant_values=5),
        segments_BT=np.pad(np.ones((B, T), np.int32), edge),
    )
    np.testing.assert_allclose(got, jax.jit(model.apply)(variables, TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@fast
def test_texts_of_different_lengths_in_a_batch_equal_each_alone():
    model = RNNClassifier(V, K, M, bidirectional=True)
    variables, lengths = randomised(model), np.array([2, 6, 1])
    segments = (np.arange(T) < lengths[:, None]).astype(np.int32)
    got = model.apply(variables, TOKENS, segments_BT=segments)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(
            got[b], model.apply(variables, TOKENS[b : b + 1, :n])[0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
@fast
def test_a_text_without_tokens_gives_the_bias_of_the_head():
    model = RNNClassifier(V, K, M)
    variables = randomised(model)
    got = model.apply(variables, TOKENS, segments_BT=np.zeros((B, T), np.int32))
    np.testing.assert_array_equal(got, np.tile(variables["params"]["head"]["bias"], (B, 1)))


def test_the_logits_are_of_the_mean_state_over_the_text():
    model = RNNClassifier(V, K, M)
    variables = randomised(model)
    p = variables["params"]
    states, _ = Layer("lstm", M).apply({"params": p["layer_0"]}, p["embed"]["embedding"][TOKENS])
    want = np.asarray(states).mean(1) @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(model.apply(variables, TOKENS), want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@fast
def test_only_the_direction_back_lets_an_early_state_see_a_later_token():
    x_BTM = np.random.default_rng(0).normal(size=(1, T, M)).astype(np.float32)
    changed = x_BTM.copy()
    changed[:, -1] += 1
    for reverse in (False, True):
        layer = Layer("gru", M, reverse=reverse)
        variables = randomised(layer, x_BTM)
        before, after = (layer.apply(variables, x)[0][:, 0] for x in (x_BTM, changed))
        assert np.array_equal(before, after) != reverse
