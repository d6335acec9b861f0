"""Adapter for a linen model with nn.Dropout and an argument such as `train` or `deterministic`.

    task = classify(from_linen(TheirNet(), train="train"))

Dimensions: B batch, T tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from jaxmodels.layers.model import Model

TRAINING = ("train", "training", "is_training")
EVALUATING = ("deterministic", "use_running_average", "eval_mode")


def from_linen(
    model: nn.Module,
    *,
    train: str = "",
    evaluate: str = "",
    rngs: tuple[str, ...] = ("dropout",),
    mask: str = "",
) -> FromLinen:
    """The model with a call of (inputs, keys_B): training with keys, one per example, else evaluation.

    train: the argument of its call that is True in training, such as "train"; evaluate: the one that is True
    in evaluation, such as "deterministic". rngs: the names under which it asks for keys. mask: the argument,
    if any, for the mask of real tokens (BT, bool), made from a batch's "segments". Parameters keep the
    model's own paths.

    In training each example is computed alone, with its own keys, so nothing depends on how a batch is
    divided over devices and micro-batches. A model with other variables than parameters, such as batch
    statistics, is an exception: it computes the batch at once with the keys of the first example, so that
    another division gives other dropout.
    """
    own = inspect.signature(type(model).__call__).parameters
    named = [name for name in (train, evaluate, mask) if name]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in own.values())
    unknown = [name for name in named if name not in own and not takes_any]
    if unknown or (len({train, evaluate}) == 1 and set(own) & {*TRAINING, *EVALUATING}):
        flags = [f"train={name!r}" for name in TRAINING if name in own]
        flags += [f"evaluate={name!r}" for name in EVALUATING if name in own]
        argument = f"{unknown[0]!r}" if unknown else "neither train nor evaluate"
        raise ValueError(
            f"from_linen: got {argument} for {type(model).__name__}, whose call takes "
            f"{', '.join([*own][1:])}; expected the name of its argument that tells training from "
            f"evaluation. Give {' and '.join(flags) or 'one of these'}."
        )
    return FromLinen(model, train, evaluate, rngs, mask)


class FromLinen(Model):
    """See from_linen."""

    model: nn.Module
    train: str = ""
    evaluate: str = ""
    rngs: tuple[str, ...] = ("dropout",)
    mask: str = ""

    def setup(self):
        """Shares the model's scope, so that parameters keep their paths."""
        nn.share_scope(self, self.model)

    def __call__(self, inputs, keys_B=None, segments_BT=None):
        """The model's outputs; see from_linen."""
        if segments_BT is not None and not self.mask:
            raise ValueError(
                'from_linen: got a batch with "segments", where 0 is padding; expected the name of the mask '
                f"argument of {type(self.model).__name__}. Give mask=, or padding would be read as tokens."
            )
        masks = {self.mask: segments_BT != 0} if segments_BT is not None else {}
        if keys_B is None:
            return self.model(inputs, **self._flags(training=False), **masks)
        model, variables = self.model.clone(parent=None, name=None), self.variables
        others = [name for name in variables if name != "params"]

        def apply(inputs, key, masks, mutable):
            rngs = {name: jax.random.fold_in(key, i) for i, name in enumerate(self.rngs)}
            options: dict[str, Any] = {**self._flags(training=True), **masks}
            return model.apply(variables, inputs, rngs=rngs, mutable=mutable, **options)

        if not others:

            def alone(x, key, masks):
                batch, masks = jax.tree.map(lambda x: x[None], (x, masks))
                return jax.tree.map(lambda y: y[0], apply(batch, key, masks, False))

            return jax.vmap(alone)(inputs, keys_B, masks)
        outputs, new = apply(inputs, keys_B[0], masks, others)
        self._store(new)
        return outputs

    def hidden(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """(logits BTV, None), for jaxmodels.tasks.language.next_token."""
        return self(tokens_BT, keys_B, segments_BT), None

    def table(self):
        """None: hidden gives logits already."""

    def _flags(self, *, training: bool) -> dict[str, bool]:
        return {name: on for name, on in ((self.train, training), (self.evaluate, not training)) if name}

    def _store(self, new: Mapping[str, Any]) -> None:
        for collection, values in new.items():
            if self.is_mutable_collection(collection):
                for name, value in values.items():
                    self.put_variable(collection, name, value)
