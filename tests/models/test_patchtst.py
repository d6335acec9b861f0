"""PatchTST against transformers' own on random weights, and what standardising each history means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.models.patchtst import PatchTST, patchtst_small

SIZES = {"patch": 4, "stride": 3, "padding": 0, "width": 8, "depth": 2, "heads": 2, "hidden_width": 12}


def histories(steps: int = 15) -> np.ndarray:
    return np.random.default_rng(0).normal(3, 5, size=(2, steps, 3)).astype(np.float32)


def ours(theirs, depth: int) -> tuple[dict, dict]:
    """(params, batch_stats) from the tensors of a PatchTSTForPrediction by name."""

    def linear(name, bias=True):
        both = {"kernel": theirs[f"{name}.weight"].T, "bias": theirs[f"{name}.bias"]}
        return both if bias else {"kernel": both["kernel"]}

    params = {
        "embed": linear("model.encoder.embedder.input_embedding"),
        "position": theirs["model.encoder.positional_encoder.position_enc"],
        "head": linear("head.projection"),
    }
    statistics = {}
    for n in range(depth):
        at = f"model.encoder.layers.{n}"
        params[f"block_{n}"] = {
            **{
                name: linear(f"{at}.self_attn.{name[0]}_proj", name != "key")
                for name in ("query", "key", "value")
            },
            "out": linear(f"{at}.self_attn.out_proj"),
            "up": linear(f"{at}.ff.0"),
            "down": linear(f"{at}.ff.3"),
        }
        statistics[f"block_{n}"] = {}
        for mine, number in (("norm_attention", 1), ("norm_mlp", 3)):
            norm = f"{at}.norm_sublayer{number}"
            norm = norm if f"{norm}.weight" in theirs else f"{norm}.batchnorm"
            params[f"block_{n}"][mine] = {"scale": theirs[f"{norm}.weight"], "bias": theirs[f"{norm}.bias"]}
            if f"{norm}.running_mean" in theirs:
                values = {"mean": theirs[f"{norm}.running_mean"], "var": theirs[f"{norm}.running_var"]}
                statistics[f"block_{n}"][mine] = values
    return params, statistics


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_it_forecasts_as_transformers_does(norm):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.PatchTSTConfig(
        num_input_channels=3,
        context_length=15,
        prediction_length=5,
        patch_length=4,
        patch_stride=3,
        d_model=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=12,
        norm_type=f"{norm}norm",
        pre_norm=False,
        scaling="std",
        ff_dropout=0.1,
        do_mask_input=False,
        pooling_type=None,
    )
    torch.manual_seed(0)
    model = transformers.PatchTSTForPrediction(config).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point():
                x.copy_(torch.rand_like(x) + 0.5 if "running_var" in name else torch.randn_like(x) * 0.5)
        want = model(torch.tensor(histories())).prediction_outputs.numpy()
    params, statistics = ours({name: x.numpy() for name, x in model.state_dict().items()}, 2)
    mine = PatchTST(5, **SIZES, norm=norm)
    shapes = jax.eval_shape(mine.init, jax.random.key(0), histories())
    variables = {"params": params, **({"batch_stats": statistics} if norm == "batch" else {})}
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(shapes))
    np.testing.assert_allclose(jax.jit(mine.apply)(variables, histories()), want, rtol=1e-4, atol=1e-4)


def test_a_series_forecast_depends_on_no_other_and_follows_its_level_and_scale():
    model = PatchTST(4, **SIZES)
    x = histories()
    variables = model.init(jax.random.key(0), x)
    forecast = jax.jit(model.apply)(variables, x)
    other = jax.jit(model.apply)(variables, np.stack([x[..., 0], x[..., 1] * 9, -x[..., 2] * 20 + 7], -1))
    np.testing.assert_allclose(other[..., 0], forecast[..., 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other[..., 1], forecast[..., 1] * 9, rtol=1e-4, atol=1e-3)


def test_the_published_network_reads_42_patches_of_336_steps():
    shapes = jax.eval_shape(patchtst_small(96).init, jax.random.key(0), jnp.zeros((1, 336, 7)))["params"]
    assert shapes["position"].shape == (42, 16) and shapes["head"]["kernel"].shape == (42 * 16, 96)


def test_a_history_shorter_than_a_patch_and_odd_heads_are_refused():
    for sizes, x in ((SIZES, histories(3)), ({**SIZES, "heads": 3}, histories())):
        with pytest.raises(ValueError, match="expected a multiple of the heads and at least a patch, 4"):
            PatchTST(4, **sizes).init(jax.random.key(0), x)
