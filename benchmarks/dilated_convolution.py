"""Which form of a dilated causal convolution of kernel 2 is fastest on this CPU, with its gradients.

For each shape interleaved rounds of: "xla", the library's own lowering of a dilated convolution, which
jaxmodels/layers/dilated_conv.py takes; "products", two products of which one is shifted; "unfolded", one
product of both inputs side by side; "folded", the dilation folded into the batch; "mixed", XLA's own but for
the kernel's gradient, which is two products. The checks say that none of the others is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import lax

from jaxmodels.layers.dilated_conv import dilated_conv

# batch, samples, channels, features, dilation
SHAPES = [
    (4, 3200, 32, 64, 1),
    (4, 3200, 32, 64, 16),
    (4, 3200, 32, 64, 256),
    (4, 3200, 64, 128, 16),
]


def past(x: jax.Array, d: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (d, 0), (0, 0)))[:, : x.shape[1]]


def products(x: jax.Array, w: jax.Array, d: int) -> jax.Array:
    return past(x, d) @ w[0] + x @ w[1]


def unfolded(x: jax.Array, w: jax.Array, d: int) -> jax.Array:
    return jnp.concatenate([past(x, d), x], -1) @ w.reshape(-1, w.shape[2])


def folded(x: jax.Array, w: jax.Array, d: int) -> jax.Array:
    B, T, C = x.shape
    t = -(-T // d)
    x = jnp.pad(x, ((0, 0), (0, t * d - T), (0, 0))).reshape(B, t, d, C).swapaxes(1, 2)
    y = dilated_conv(x.reshape(B * d, t, C), w, 1).reshape(B, d, t, -1)
    return y.swapaxes(1, 2).reshape(B, t * d, -1)[:, :T]


def mixed(x: jax.Array, w: jax.Array, d: int) -> jax.Array:
    @jax.custom_vjp
    def convolved(x, w):
        return dilated_conv(x, w, d)

    def backward(residuals, dy):
        x, w = residuals
        dx = lax.conv_general_dilated(
            dy,
            w[::-1].swapaxes(1, 2),
            (1,),
            ((0, d),),
            rhs_dilation=(d,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return dx, jnp.stack([jnp.einsum("BTC,BTF->CF", z, dy) for z in (past(x, d), x)])

    convolved.defvjp(lambda x, w: (convolved(x, w), (x, w)), backward)
    return convolved(x, w)


WAYS = {"xla": dilated_conv, "products": products, "unfolded": unfolded, "folded": folded, "mixed": mixed}


def programs(B: int, T: int, C: int, F: int, d: int) -> dict[str, Callable[[], object]]:
    """The outputs and both gradients, by each way; they agree."""
    random = np.random.default_rng(0)
    x, w, dy = (
        jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((B, T, C), (2, C, F), (B, T, F))
    )

    def whole(fn):
        def run(x, w, dy):
            y, back = jax.vjp(lambda x, w: fn(x, w, d), x, w)
            return y, *back(dy)

        return jax.jit(run)

    compiled = {name: whole(fn) for name, fn in WAYS.items()}
    wanted = compiled["xla"](x, w, dy)
    for fn in compiled.values():
        for got, want in zip(fn(x, w, dy), wanted, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()))
    return {name: (lambda fn=fn: fn(x, w, dy)) for name, fn in compiled.items()}


def timed(fn: Callable[[], object]) -> Callable[[], float]:
    """A case of measure.interleaved: seconds of one call, whose program is compiled before."""
    jax.block_until_ready(fn())

    def call() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(fn())
        return time.perf_counter() - begun

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="15 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: one small shape, one round")
    args = parser.parse_args()
    rounds, patience = args.rounds or (1 if args.quick else 15), 1 if args.quick else args.patience
    cases, checks = {}, []
    for B, T, C, F, d in [(1, 64, 4, 8, 16)] if args.quick else SHAPES:
        name = f"{B} x {T} samples, {C} to {F} channels, dilation {d}"
        measure.note(name)
        made = {way: timed(fn) for way, fn in programs(B, T, C, F, d).items()}
        got = measure.interleaved(made, rounds, patience)
        others = {way: measure.ratio(got[way], got["xla"]) for way in WAYS if way != "xla"}
        cases[name] = {
            "us": {way: measure.microseconds(seconds) for way, seconds in got.items()},
            "times_of_xla": others,
            "foreign": measure.foreign(got),
        }
        value = None if args.quick else min(ratio["median"] for ratio in others.values())
        checks.append(measure.check(f"{name}: the fastest other way / XLA's own", value, least=0.9))
    measure.report("dilated_convolution", args.quick, cases, checks)


if __name__ == "__main__":
    main()
