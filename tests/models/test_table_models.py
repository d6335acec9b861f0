"""Models of tables: as their authors' on random weights, and blind to what stands where nothing is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.table_embedding import Field, TableEmbedding, bins_of, piecewise_linear
from jaxmodels.models.ft_transformer import FTTransformer
from jaxmodels.models.tabular_resnet import TabularResNet

EDGES = ((-2.0, -0.5, 0.5, 2.0), (-1.0, 0.0, 3.0))
FIELDS = (Field("number", 2, EDGES[0]), Field("category", 3), Field("number", 1, EDGES[1]))
SMALL = {"width": 8, "depth": 1, "hidden_width": 6}


def rows(count: int = 5) -> np.ndarray:
    """A number, never missing here, a category, and a number."""
    random = np.random.default_rng(0)
    level_BK = np.eye(3)[random.integers(0, 3, count)]
    number_B2 = random.normal(size=(count, 2))
    return np.c_[number_B2[:, 0], np.zeros(count), level_BK, number_B2[:, 1]].astype(np.float32)


def linear(theirs, name: str, bias: bool = True) -> dict:
    kernel = {"kernel": theirs[f"{name}.weight"].T}
    return kernel | {"bias": theirs[f"{name}.bias"]} if bias else kernel


def norm(theirs, name: str) -> dict:
    return {"scale": theirs[f"{name}.weight"], "bias": theirs[f"{name}.bias"]}


def test_ft_transformer_answers_as_its_authors_does():
    torch = pytest.importorskip("torch", reason="needs torch")
    rtdl = pytest.importorskip("rtdl_revisiting_models", reason="needs rtdl_revisiting_models")
    torch.manual_seed(0)
    module = rtdl.FTTransformer(
        n_cont_features=2,
        cat_cardinalities=[3],
        d_out=2,
        n_blocks=3,
        d_block=8,
        attention_n_heads=2,
        attention_dropout=0.1,
        ffn_d_hidden=6,
        ffn_d_hidden_multiplier=None,
        ffn_dropout=0.1,
        residual_dropout=0.0,
    ).eval()
    theirs = {name: p.detach().numpy() for name, p in module.named_parameters()}
    category = {"kernel": theirs["cat_embeddings.embeddings.0.weight"] + theirs["cat_embeddings.bias"]}
    params = {
        "first": theirs["cls_embedding.weight"],
        "embed": {
            "kernel": theirs["cont_embeddings.weight"],
            "bias": theirs["cont_embeddings.bias"],
            "missing": np.full((1, 8), np.nan, np.float32),
            "category_1": category,
        },
        "norm": norm(theirs, "backbone.output.normalization"),
        "head": linear(theirs, "backbone.output.linear"),
    }
    for n in range(3):
        at = f"backbone.blocks.{n}"
        params[f"block_{n}"] = {
            "query": linear(theirs, f"{at}.attention.W_q"),
            "key": linear(theirs, f"{at}.attention.W_k", bias=False),
            "value": linear(theirs, f"{at}.attention.W_v"),
            "out": linear(theirs, f"{at}.attention.W_out"),
            "norm_hidden": norm(theirs, f"{at}.ffn_normalization"),
            "up": linear(theirs, f"{at}.ffn.linear1"),
            "down": linear(theirs, f"{at}.ffn.linear2"),
            **({"norm_attention": norm(theirs, f"{at}.attention_normalization")} if n else {}),
        }
    x_BF = rows()
    want = module(torch.tensor(x_BF[:, [0, 5]]), torch.tensor(x_BF[:, 2:5].argmax(1)[:, None])).detach()
    got = FTTransformer(FIELDS, 2, width=8, heads=2, hidden_width=6).apply({"params": params}, x_BF)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_resnet_answers_as_its_authors_does():
    torch = pytest.importorskip("torch", reason="needs torch")
    rtdl = pytest.importorskip("rtdl_revisiting_models", reason="needs rtdl_revisiting_models")
    torch.manual_seed(0)
    sizes = {"n_blocks": 2, "d_block": 8, "d_hidden": 6, "d_hidden_multiplier": None}
    module = rtdl.ResNet(d_in=12, d_out=2, **sizes, dropout1=0.1, dropout2=0.1)
    for layer in (module.input_projection, *(block.linear2 for block in module.blocks)):
        layer.bias.data.zero_()  # normalisation removes what it adds
    module(torch.randn(64, 12))  # so that the statistics are none of the first ones
    module.eval()
    theirs = {name: p.detach().numpy() for name, p in module.state_dict().items()}
    model = TabularResNet(FIELDS, 2, embedding=4, **{**SMALL, "depth": 2})
    variables = model.init(jax.random.key(1), rows())
    names = {"norm": "output.normalization", **{f"norm_{n}": f"blocks.{n}.normalization" for n in range(2)}}
    params = {
        "embed": variables["params"]["embed"],
        "stem": linear(theirs, "input_projection", bias=False),
        "head": linear(theirs, "output.linear"),
        **{ours: norm(theirs, name) for ours, name in names.items()},
        **{f"up_{n}": linear(theirs, f"blocks.{n}.linear1") for n in range(2)},
        **{f"down_{n}": linear(theirs, f"blocks.{n}.linear2", bias=False) for n in range(2)},
    }
    statistics = {
        ours: {"mean": theirs[f"{name}.running_mean"], "var": theirs[f"{name}.running_var"]}
        for ours, name in names.items()
    }
    vectors = TableEmbedding(FIELDS, 4).apply({"params": params["embed"]}, rows())
    want = module(torch.tensor(np.array(vectors).reshape(5, -1))).detach()
    got = model.apply({"params": params, "batch_stats": statistics}, rows())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def with_a_missing_number() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a number, without it, and without it where something else stands."""
    there, missing, other = rows(), rows(), rows()
    missing[:, 1] = other[:, 1] = 1
    other[:, 0] = [np.nan, np.inf, 1e9, -3, 0]
    return there, missing, other


@pytest.mark.parametrize("numbers", ["linear", "piecewise", "periodic"])
def test_the_vector_of_a_missing_number_and_its_gradient_do_not_see_what_stands_there(numbers):
    model = TableEmbedding(FIELDS, 4, numbers, frequencies=3)
    variables = model.init(jax.random.key(0), rows())

    @jax.jit
    def said(x_BF):
        y_BND, back = jax.vjp(lambda v: model.apply(v, x_BF), variables)
        return y_BND, back(y_BND)

    there, missing, other = (jax.tree.map(np.asarray, said(x_BF)) for x_BF in with_a_missing_number())
    jax.tree.map(np.testing.assert_array_equal, missing, other)
    assert (abs(missing[0] - there[0])[:, 0] > 1e-6).all() and (missing[0] == there[0])[:, 1:].all()


def test_a_missing_number_changes_no_output_whatever_stands_there():
    for model in (
        FTTransformer(FIELDS, 1, heads=2, **SMALL),
        TabularResNet(FIELDS, 1, **SMALL),
    ):
        variables = model.init(jax.random.key(0), rows())
        there, missing, other = (np.asarray(model.apply(variables, x)) for x in with_a_missing_number())
        np.testing.assert_array_equal(missing, other)
        assert (abs(missing - there) > 1e-6).all()


def test_piecewise_and_periodic_vectors_are_those_of_the_authors():
    torch = pytest.importorskip("torch", reason="needs torch")
    rtdl = pytest.importorskip("rtdl_num_embeddings", reason="needs rtdl_num_embeddings")
    x_BM = np.random.default_rng(1).normal(0, 2, size=(40, 2)).astype(np.float32)
    encoding = rtdl.PiecewiseLinearEncoding([torch.tensor(edge) for edge in EDGES])
    got_BMQ = np.asarray(piecewise_linear(jnp.array(x_BM), EDGES))
    np.testing.assert_allclose(
        np.c_[got_BMQ[:, 0], got_BMQ[:, 1, :2]], encoding(torch.tensor(x_BM)), rtol=1e-4, atol=1e-5
    )
    assert (got_BMQ[:, 1, 2] == 0).all()
    module = rtdl.PeriodicEmbeddings(2, 4, n_frequencies=3, frequency_init_scale=0.5, lite=False)
    theirs = [p.detach().numpy() for p in module.parameters()]
    params = dict(zip(("frequency", "kernel", "bias"), theirs, strict=True))
    ours = TableEmbedding((Field("number"),) * 2, 4, "periodic", frequencies=3)
    want = module(torch.tensor(x_BM)).detach()
    np.testing.assert_allclose(ours.apply({"params": params}, x_BM), want, rtol=1e-4, atol=1e-5)


def test_bins_hold_equally_many_values_and_equal_edges_are_one():
    assert bins_of(np.array([3, 1, np.nan, 2, 4, 0]), 4) == (0, 1, 2, 3, 4)
    assert bins_of(np.array([0, 0, 0, 0, 5, 9]), 3) == (0, np.float32(1.6666666), 9)
    with pytest.raises(ValueError, match=r"4 bins for 2 values, 1 different ones; expected .* differ"):
        bins_of(np.array([7.0, np.nan, 7.0]), 4)


def test_features_that_do_not_fit_the_columns_are_refused():
    with pytest.raises(ValueError, match=r"shape \(5, 6\) for columns of 3 features"):
        TableEmbedding((Field("category", 3),), 4).init(jax.random.key(0), rows())
    with pytest.raises(ValueError, match="two rising edges or more of each number"):
        fields = (Field("number", 2), Field("category", 4))
        TableEmbedding(fields, 4, "piecewise").init(jax.random.key(0), rows())
    with pytest.raises(ValueError, match="got width 8, 3 heads"):
        FTTransformer(FIELDS, 1, heads=3, **SMALL).init(jax.random.key(0), rows())
