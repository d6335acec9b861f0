"""What all models share: rngs, which would reach nothing, are refused in words."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import models
from jaxmodels.layers.model import Model
from jaxmodels.models.mlp import MLP

pytestmark = pytest.mark.fast

KEY = jax.random.key(0)


def test_every_module_of_every_model_is_one():
    for found in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"jaxmodels.models.{found.name}")
        for name, x in vars(module).items():
            if inspect.isclass(x) and x.__module__ == module.__name__ and issubclass(x, nn.Module):
                assert issubclass(x, Model), f"{found.name}.{name}"


@pytest.mark.slow
def test_rngs_are_refused_and_keys_drop():
    model, x = MLP((64,), 4, dropout=0.5), jnp.ones((3, 5))
    variables = model.init(KEY, x)
    said = r"MLP: got rngs \('dropout'\); expected none, .*one random key for each example\. Give keys_B="
    with pytest.raises(ValueError, match=said):
        model.apply(variables, x, rngs={"dropout": KEY})
    dropped = model.apply(variables, x, jax.random.split(KEY, 3))
    assert np.abs(dropped - model.apply(variables, x)).max() > 0
    assert np.array_equal(model.apply(variables, x, rngs=None), model.apply(variables, x))
