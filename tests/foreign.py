"""What tests of image models from elsewhere share: a PyTorch module with shaken weights, its logits and ours.

Dimensions: B batch, H W C image.
"""

from __future__ import annotations

import jax
import numpy as np


def random_images(*shape: int) -> np.ndarray:
    """Normal numbers (B, H, W, C)."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def shaken(module, seed=0):
    """The module in evaluation, with parameters and statistics of which none is zero or one."""
    import torch

    torch.manual_seed(seed)
    for name, x in module.state_dict().items():
        if x.is_floating_point():
            x.copy_(torch.rand(x.shape) + 0.5 if "running_var" in name else torch.randn(x.shape) * 0.3)
    return module.eval()


def logits(module, images):
    """What the PyTorch module says of images (BHWC)."""
    import torch

    with torch.no_grad():
        out = module(torch.tensor(images.transpose(0, 3, 1, 2)))
    return (out if isinstance(out, torch.Tensor) else out.logits).numpy()


def ours(found, images):
    """What the loaded module says of them."""
    return jax.jit(found.model.apply)({"params": found.params, **found.extra}, images)


def count(tree) -> int:
    """Numbers in all leaves."""
    return sum(x.size for x in jax.tree.leaves(tree))


def shapes(model, *shape: int, method=None):
    """Shapes of the parameters, for images of this shape."""
    x = jax.ShapeDtypeStruct(shape, np.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, method=method), x)["params"]


def weights_in(module, layout):
    """The function that lists the weights of a converted family in a layout."""
    return next(family.weights for family in module.FAMILIES if family.layout == layout)
