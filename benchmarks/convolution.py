"""Which form of a convolution's gradient is faster on this computer's CPU, and what that does to whole steps.

For each shape: interleaved rounds of XLA's own gradient of the kernel and of the form in
jaxmodels/layers/conv.py, whether or not its rule takes it there ("taken"); the same for the gradient of
pooling. Then a step of two networks with flax's convolution and pooling, and with ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import lax

from jaxmodels.layers import conv
from jaxmodels.layers.conv import Conv
from jaxmodels.layers.pool import max_pool

# batch, height and width, channels, features, size of the kernel, stride
SHAPES = [
    *((128, 28, c, f, 3, 1) for c, f in ((1, 32), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64))),
    *((128, 14, c, f, 3, 1) for c, f in ((32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (256, 256))),
    *((128, 7, c, f, 3, 1) for c, f in ((64, 128), (128, 128), (256, 256))),
    (32, 56, 64, 64, 3, 1),
    (32, 56, 128, 128, 3, 2),
    (64, 16, 128, 256, 3, 2),
    (32, 224, 3, 64, 7, 2),
]


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


# batch, height and width, channels, window, stride, padding
POOLS = [
    (128, 28, 32, 2, 2, 0),
    (128, 14, 64, 3, 1, 1),
    (128, 28, 32, 3, 2, 1),
    (32, 112, 64, 3, 2, 1),
]


def pooling(B: int, H: int, C: int, window: int, stride: int, pad: int) -> dict:
    """The gradient of maximum pooling."""
    pads = ((pad, pad), (pad, pad))
    x = jnp.maximum(random(B, H, H, C), 0)
    dy = random(*jax.eval_shape(lambda x: max_pool(x, window, stride, pads), x).shape)

    def flax(x):
        return nn.max_pool(x, (window, window), (stride, stride), pads)

    ways = {"xla": flax, "ours": lambda x: max_pool(x, window, stride, pads)}
    programs = {name: jax.jit(lambda x, dy, fn=fn: jax.vjp(fn, x)[1](dy)[0]) for name, fn in ways.items()}
    return {name: (lambda fn=fn: fn(x, dy)) for name, fn in programs.items()}


def kernel_gradients(B: int, H: int, C: int, F: int, k: int, stride: int) -> dict:
    strides, pads = (stride, stride), lax.padtype_to_pads((H, H), (k, k), (stride, stride), "SAME")
    x, w, dy = random(B, H, H, C), random(k, k, C, F), random(B, -(-H // stride), -(-H // stride), F)
    own = jax.jit(lambda x, w, dy: jax.vjp(lambda w: conv._native(x, w, strides, pads), w)[1](dy)[0])
    rows = jax.jit(lambda x, w, dy: conv._kernel_gradient(x, w.shape, dy, strides, pads))
    return {"xla": lambda: own(x, w, dy), "rows": lambda: rows(x, w, dy)}


class Plain(nn.Module):
    """The textbook network: two convolutions, each pooled, and a dense layer."""

    ours: bool

    @nn.compact
    def __call__(self, x):
        layer, pool = (
            (Conv, max_pool) if self.ours else (nn.Conv, lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
        )
        for features in (32, 64):
            x = pool(nn.relu(layer(features, (3, 3))(x)))
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))


class ResNet18(nn.Module):
    """ResNet-18 for images of 32 x 32 (arXiv:1512.03385): four stages of two blocks of 3 x 3 convolutions."""

    ours: bool

    @nn.compact
    def __call__(self, x):
        layer = Conv if self.ours else nn.Conv

        def conv_norm(x, features, kernel=3, stride=1):
            x = layer(features, (kernel, kernel), strides=(stride, stride), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=False)(x)

        x = nn.relu(conv_norm(x, 64))
        for stage, features in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage and not block else 1
                y = conv_norm(nn.relu(conv_norm(x, features, stride=stride)), features)
                x = nn.relu(y + (conv_norm(x, features, 1, stride) if x.shape != y.shape else x))
        return nn.Dense(10)(x.mean((1, 2)))


def steps(kind: type, batch: int, shape: tuple[int, int, int]) -> dict:
    x = random(batch, *shape)
    found = {}
    for name, net in {"flax": kind(False), "ours": kind(True)}.items():
        params = jax.jit(net.init)(jax.random.key(0), x)
        gradient = jax.jit(
            jax.grad(lambda p, x, net=net: (net.apply(p, x, mutable=["batch_stats"])[0] ** 2).sum())
        )
        found[name] = lambda gradient=gradient, params=params: gradient(params, x)
    return found


# network, batch, images, times as fast at least
STEPS = {
    "textbook network": (Plain, 128, (28, 28, 1), 1.77),
    "ResNet-18": (ResNet18, 64, (32, 32, 3), 1.35),
}


def timed(fn: Callable[[], object]) -> Callable[[], float]:
    """A case of measure.interleaved: seconds of one call, whose program is compiled before."""
    jax.block_until_ready(fn())

    def call() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(fn())
        return time.perf_counter() - begun

    return call


def run(made: dict, first: str, second: str, args: argparse.Namespace) -> dict:
    got = measure.interleaved({name: timed(fn) for name, fn in made.items()}, args.rounds, args.patience)
    return {
        "us": {name: measure.microseconds(rounds) for name, rounds in got.items()},
        "times_faster": measure.ratio(got[first], got[second]),
        "foreign": measure.foreign(got),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="7 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: few shapes, small batches, one round"
    )
    args = parser.parse_args()
    args.rounds, args.patience = args.rounds or (1 if args.quick else 7), 1 if args.quick else args.patience
    cases = {}
    for B, H, C, F, k, stride in (SHAPES[0], SHAPES[5]) if args.quick else SHAPES:
        name = f"kernel gradient {H}x{H}x{C} to {F}, {k}x{k} at {stride}"
        measure.note(name)
        taken = conv._suits_rows((B, H, H, C), (k, k, C, F))
        made = kernel_gradients(4 if args.quick else B, H, C, F, k, stride)
        cases[name] = {**run(made, "xla", "rows", args), "taken": taken}
    checks = []
    for B, H, C, window, stride, pad in POOLS[:2] if args.quick else POOLS:
        name = f"gradient of pooling {H}x{H}x{C} by {window} at {stride}"
        measure.note(name)
        cases[name] = run(pooling(4 if args.quick else B, H, C, window, stride, pad), "xla", "ours", args)
        value = None if args.quick else cases[name]["times_faster"]["median"]
        checks.append(measure.check(f"{name}: XLA's own / ours", value, least=2.0))
    for name, (kind, batch, shape, least) in STEPS.items():
        if args.quick and kind is ResNet18:
            continue
        measure.note(name)
        cases[name] = run(steps(kind, 4 if args.quick else batch, shape), "flax", "ours", args)
        value = None if args.quick else cases[name]["times_faster"]["median"]
        checks.append(measure.check(f"{name}: a step with flax's layers / with ours", value, least=least))
    measure.report("convolution", args.quick, cases, checks)


if __name__ == "__main__":
    main()
