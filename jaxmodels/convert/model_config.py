"""A config.json, which anybody may have written, as a module no larger than the tensors beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn

from jaxmodels.convert.assemble import Source, options, present, shapes_of
from jaxmodels.convert.family import Family, Weight

COUNTS = (  # settings that count repeated parts, each of which has tensors of its own
    *("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"),
    *("encoder_layers", "decoder_layers"),
    *("num_experts", "num_local_experts", "depths"),
)


def layout_of(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The library that wrote a config.json, and the setting that names the model."""
    if isinstance(config.get("architecture"), str):
        return "timm", "architecture"
    return ("transformers", "model_type") if "model_type" in config else None


def module_of(path: Path, family: Family, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> nn.Module:
    """The module of the config.json at this path; a ValueError if it asks for more layers than tensors."""
    try:
        model = family.model(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a setting may be anything
        raise ValueError(
            f"{path}: got settings of the wrong kind ({type(error).__name__}: {str(error)[:200]}); expected "
            "what transformers or timm writes. Get the file again."
        ) from error
    for name in COUNTS:
        value = config.get(name)
        count = sum(value) if isinstance(value, list) else value
        if isinstance(count, int) and count > len(tensors):
            raise ValueError(
                f"{path}: got {name} {str(value)[:80]} and {len(tensors):,} tensors; expected at least one "
                "tensor for each. See whether both are of one model."
            )
    return model


def checked_shapes(
    model: nn.Module, weights: Sequence[Weight], source: Source, inputs: tuple | None
) -> tuple[dict[str, Any], list[str]]:
    """Shapes of all variables by path, and the collections of those that are not trained.

    Nothing is allocated. Nothing is traced before the files are known to have a tensor for every parameter
    outside the stacked layers.
    """
    for weight in weights:
        for name in weight.names:
            if "{}" not in name:
                present(weight, name, source)
    try:
        return shapes_of(model, source.family, inputs)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    except Exception as error:  # flax and jax raise anything for sizes that do not fit each other
        raise ValueError(
            f"{source.path}: got sizes in {source.described} that make no {source.kind} "
            f"({str(error)[:200]}); expected those of one model. Get the file again, or give inputs= of the "
            "right shapes."
        ) from error


def layout_by_names(
    path: Path, model: nn.Module, tensors: Mapping[str, Any], families: Sequence[Family]
) -> Family:
    """The family whose names most of the file's tensors have; the first of equals."""
    shares: list[tuple[float, Family]] = []
    for family in families:
        try:
            weights = family.weights(model)
        except ValueError:  # a layout that has no form of this module
            continue
        names = [name.replace("{}", "0") for weight in weights for name in weight.names]
        held = sum(any(option in tensors for option in options(name, family)) for name in names)
        shares.append((held / len(names), family))
    best = max((share for share, _ in shares), default=0.0)
    if best <= 0.5 and len(shares) != 1:
        known = ", ".join(
            f"{family.layout} (such as {family.weights(model)[0].names[0].replace('{}', '0')})"
            for _, family in shares
        )
        raise ValueError(
            f"{path}: got tensors such as {', '.join(list(tensors)[:3])} for a {type(model).__name__}; "
            f"expected the names of {known or 'no layout, as none is known'}. Rename them, or say layout="
        )
    return next(family for share, family in shares if share == best)
