"""LoRA adapters (arXiv:2106.09685) from and to folders of the library PEFT.

    W' = W + scale x B @ A            PEFT: A (rank, inputs), B (outputs, rank), for each of its modules
    W' = W + a @ b                    ours: a (..., I, R), b (..., R, O), see tasks/lora.py

A kernel of ours may stack their layers and join several of their modules, such as query, key and value. Then
R holds the ranks of its parts beside each other, and b has each part's rows in the columns of that part, zero
in the others; parts with the same A share its rows. Scales are part of b.
Dimensions: I inputs, O outputs, R ranks of all parts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxmodels.convert.assemble import indices, options, shapes_of
from jaxmodels.convert.families import family_of
from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.peft_config import CONFIG, Settings, read_settings
from jaxmodels.convert.tensors import Tensor, finite, open_file, write_file
from jaxmodels.runs.files import write_text
from jaxmodels.tasks.lora import Adapters

TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_(A|B)\.weight")
# Names that modules have in transformers 5 and not in files of weights: (in files, in the program).
RENAMED = (
    ("vit.encoder.layer.{}.attention.attention.query", "vit.layers.{}.attention.q_proj"),
    ("vit.encoder.layer.{}.attention.attention.key", "vit.layers.{}.attention.k_proj"),
    ("vit.encoder.layer.{}.attention.attention.value", "vit.layers.{}.attention.v_proj"),
    ("vit.encoder.layer.{}.attention.output.dense", "vit.layers.{}.attention.o_proj"),
    ("vit.encoder.layer.{}.intermediate.dense", "vit.layers.{}.mlp.fc1"),
    ("vit.encoder.layer.{}.output.dense", "vit.layers.{}.mlp.fc2"),
)


class Kernel(NamedTuple):
    """One of our kernels that joins linear layers of PEFT's base."""

    weight: Weight
    modules: tuple[str, ...]  # templates of their names, in the program
    shape: tuple[int, ...]
    inputs_first: bool  # their matrices are (inputs, outputs), as in GPT-2

    @property
    def stack(self) -> tuple[int, ...]:
        """The axes of layers, and of experts."""
        return self.shape[:-2]

    def joined(self, parts: list[np.ndarray]) -> np.ndarray:
        """b (rank, O) from B (outputs, rank) of each part."""
        return np.asarray(self.weight.read(*(x.T if self.inputs_first else x for x in parts)))

    def parted(self, b: np.ndarray) -> list[np.ndarray]:
        """The inverse of joined."""
        written = self.weight.write(b)
        parts = written if isinstance(written, tuple) else (written,)
        return [np.asarray(x.T if self.inputs_first else x) for x in parts]


def load_adapter(folder: str | os.PathLike[str], model: nn.Module, *, layout: str | None = None) -> Adapters:
    """The adapters of a folder for this model's parameters: tasks.lora.merge(params, adapters, 1.0).

    layout: the library whose names the adapter's modules have; None is the first that has a form of the
    model. A tensor that no kernel of the model has, one that is missing, another shape or rank, a value that
    is not finite and a setting that is not followed are ValueErrors.
    """
    folder = Path(folder)
    if not (folder / TENSORS).is_file():
        raise FileNotFoundError(
            f"{folder}: got no {TENSORS}; expected a folder that PEFT wrote (pickles of torch are not read). "
            "Check the path, or save the adapter again."
        )
    settings, tensors = read_settings(folder), open_file(folder / TENSORS)
    family = family_of(model, layout, "load_adapter")
    kernels = _kernels(model, family)
    at = {
        option: (kernel, index, part)
        for kernel in kernels
        for index in indices(kernel.weight, kernel.shape)
        for part, names in enumerate(zip(kernel.weight.names, kernel.modules, strict=True))
        for name in names
        for option in options(name.format(*index).removesuffix(".weight"), family)
    }
    factors: dict[str, dict[tuple[int, ...], dict[int, tuple[np.ndarray, np.ndarray]]]] = {}
    kernel_of = {kernel.weight.path: kernel for kernel in kernels}
    for module, pair in _pairs(folder, tensors).items():
        if module not in at:
            known = ", ".join(sorted({kernel.modules[0] for kernel in kernels})[:6])
            raise ValueError(
                f"{folder / TENSORS}: got factors of {module}; expected those of linear layers that a "
                f"{type(model).__name__} has, such as {known}. Take an adapter of this model."
            )
        settings.check_target(module)
        kernel, index, part = at[module]
        outputs = _outputs(kernel)[part]
        A, B = _checked(folder, settings, module, pair, kernel.shape[-2], outputs)
        factors.setdefault(kernel.weight.path, {}).setdefault(index, {})[part] = A, B
    return {path: _assembled(kernel_of[path], by_index) for path, by_index in factors.items()}


def _pairs(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The factors A and B by the name of their module."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = FACTOR.fullmatch(name)
        if found is None or not name.startswith(PREFIX):
            raise ValueError(
                f"{folder / TENSORS}: got the tensor {name!r}; expected names such as "
                f"{PREFIX}….lora_A.weight, as other kinds of adapters are not followed. Merge it with PEFT."
            )
        pairs.setdefault(found[1].removeprefix(PREFIX), {})[found[2]] = tensor
    for module, pair in pairs.items():
        if len(pair) < 2:
            raise ValueError(
                f"{folder / TENSORS}: got one factor of {module}; expected lora_A and lora_B. Get the file "
                "again."
            )
    if not pairs:
        raise ValueError(f"{folder / TENSORS}: got no tensors; expected factors. Get the file again.")
    return pairs


def _checked(
    folder: Path, settings: Settings, module: str, pair: Mapping[str, Tensor], inputs: int, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """(A, scale x B) in float32."""
    rank = settings.rank_of(module)
    if rank > max(inputs, outputs):
        raise ValueError(
            f"{settings.path}: got the rank {rank:,} of {module}; expected at most {max(inputs, outputs):,}, "
            "the larger size of its kernel. Merge it with PEFT."
        )
    for name, want in (("A", (rank, inputs)), ("B", (outputs, rank))):
        if pair[name].shape != want:
            raise ValueError(
                f"{folder / TENSORS}: got lora_{name} of {module} of the shape {list(pair[name].shape)}; "
                f"expected {list(want)}, by {CONFIG} and the model. See whether all are of one model."
            )
    A, B = (
        finite(pair[name].read(), pair[name].path, f"{module}.lora_{name}").astype(np.float32)
        for name in ("A", "B")
    )
    return A, np.float32(settings.scale_of(module)) * B


def _assembled(kernel: Kernel, by_index: Mapping[tuple[int, ...], Mapping[int, Any]]) -> dict[str, Any]:
    """a and b of one kernel; a layer without factors, or with fewer ranks, has zeros."""
    joined = {index: _joined(kernel, parts) for index, parts in by_index.items()}
    R = max(len(b) for _, b in joined.values())
    I, O = kernel.shape[-2:]
    a, b = np.zeros((*kernel.stack, I, R), np.float32), np.zeros((*kernel.stack, R, O), np.float32)
    for index, (one, other) in joined.items():
        a[index][:, : len(other)], b[index][: len(other)] = one, other
    return {"a": jax.numpy.asarray(a), "b": jax.numpy.asarray(b)}


def _joined(kernel: Kernel, parts: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> tuple[Any, Any]:
    """(a, b) of one layer: ranks of the parts beside each other, those with the same A together."""
    outputs = _outputs(kernel)
    groups: list[tuple[np.ndarray, list[np.ndarray]]] = []
    for part, (A, B) in parts.items():
        group = next((group for group in groups if np.array_equal(group[0], A)), None)
        if group is None:
            group = A, [np.zeros((n, len(A)), np.float32) for n in outputs]
            groups.append(group)
        group[1][part] = B
    a = np.concatenate([A.T for A, _ in groups], 1)
    return a, np.concatenate([kernel.joined(Bs) for _, Bs in groups])


def _outputs(kernel: Kernel) -> list[int]:
    """The outputs of each part."""
    parts = len(kernel.modules)
    return [kernel.shape[-1] // parts] * parts


def _kernels(model: nn.Module, family: Family) -> list[Kernel]:
    """The kernels whose columns are outputs of linear layers, whole or in parts, in whatever order."""
    shapes, _ = shapes_of(model, family, None)
    renamed = {f"{file}.weight": program for file, program in RENAMED}
    found = []
    for weight in family.weights(model):
        shape = shapes[weight.path].shape
        stack = weight.names[0].count("{}")
        if len(shape) - stack != 2 or not re.search(r"/kernel$|/experts/(gate|up|down)$", weight.path):
            continue
        outputs = [shape[-1] // len(weight.names)] * len(weight.names)
        for inputs_first in (False, True):
            columns = [(1, n) if inputs_first else (n, 1) for n in outputs]
            if _read_shape(weight, columns) == (1, shape[-1]):
                names = tuple(renamed.get(name, name.removesuffix(".weight")) for name in weight.names)
                found.append(Kernel(weight, names, shape, inputs_first))
                break
    return found


def _read_shape(weight: Weight, shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that a weight's read gives; None where it takes no such tensors, as that of a convolution."""
    try:
        return jax.eval_shape(weight.read, *(jax.ShapeDtypeStruct(s, np.float32) for s in shapes)).shape
    except (TypeError, ValueError, IndexError):
        return None


def save_adapter(
    folder: str | os.PathLike[str],
    model: nn.Module,
    adapters: Adapters,
    scale: float = 1.0,
    *,
    layout: str | None = None,
    base: str | None = None,
) -> None:
    """Writes adapters of this model, such as tasks/lora.py's, as a folder that PEFT loads.

    scale: of a @ b, so alpha / rank of training. base: the name of the base for people. Of a kernel that
    joins several modules, those whose rows of b are all zero are left out.
    """
    family = family_of(model, layout, "save_adapter")
    kernels = _kernels(model, family)
    kernel_of = {kernel.weight.path: kernel for kernel in kernels}
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    chosen: set[str] = set()
    for path, pair in adapters.items():
        kernel = kernel_of.get(path)
        if kernel is None or pair["a"].shape[:-1] != kernel.shape[:-1]:
            raise ValueError(
                f"save_adapter: got an adapter of {path}, {pair['a'].shape}; expected those of linear layers "
                f"that a {type(model).__name__} has: {', '.join(sorted(kernel_of))}. Train adapters of those."
            )
        a, b = (np.asarray(pair[name], np.float32) for name in ("a", "b"))
        parts = {index: kernel.parted(b[index]) for index in indices(kernel.weight, kernel.shape)}
        used = [any(x[part].any() for x in parts.values()) for part in range(len(kernel.modules))]
        for part, template in enumerate(kernel.modules):
            if any(used) and not used[part]:
                continue
            chosen.add(template)
            for index, of_index in parts.items():
                module = template.format(*index)
                ranks[module] = a.shape[-1]
                tensors[f"{PREFIX}{module}.lora_A.weight"] = a[index].T
                tensors[f"{PREFIX}{module}.lora_B.weight"] = of_index[part]
    rank = max(ranks.values())
    other = {module: n for module, n in ranks.items() if n != rank}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": _shortest(scale * rank),
        "target_modules": _targets(ranks, kernels, chosen),
        "rank_pattern": other,
        "alpha_pattern": {module: _shortest(scale * n) for module, n in other.items()},
        "fan_in_fan_out": any(kernel_of[path].inputs_first for path in adapters),
        "bias": "none",
        "use_rslora": False,
        "modules_to_save": None,
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / TENSORS, {name: (x.shape, x.dtype, x.view) for name, x in tensors.items()})
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _shortest(x: float) -> float | int:
    return int(x) if x == int(x) else x


def _targets(modules: Iterable[str], kernels: Iterable[Kernel], chosen: set[str]) -> list[str]:
    """Short ends of names that mean these modules and no other linear layer; else the names."""
    every = {template for kernel in kernels for template in kernel.modules}
    ends = set()
    for template in chosen:
        words = template.split(".")
        for n in range(1, len(words)):
            end = ".".join(words[-n:])
            if "{}" in end:
                return sorted(modules)
            if all(name in chosen for name in every if name.endswith("." + end)):
                ends.add(end)
                break
        else:
            return sorted(modules)
    return sorted(ends)
