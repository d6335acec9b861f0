"""adapter_config.json of the library PEFT: each setting that changes results is followed, or refused by name.

Which modules are adapted is what the tensors beside it say; target_modules and layers_to_transform must
not contradict them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.formats.json_file import read_object

CONFIG = "adapter_config.json"
# Settings that say where an adapter comes from, or how it was trained.
FREE = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
    *("layers_pattern", "exclude_modules"),  # with target_modules they only choose modules
    "fan_in_fan_out",  # the kind of the layer decides, in PEFT too
}
FOLLOWED = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias"),
    *("target_modules", "layers_to_transform", "init_lora_weights"),
}
# How factors started; others, such as "pissa", change the base's kernels when PEFT loads the adapter.
STARTS = (True, False, "gaussian", "eva", "orthogonal")
# A pattern is a regular expression from a file: only forms that cannot search for ever are followed.
PATTERN = re.compile(r"[\w.\\|^$()\[\]*-]{1,200}")


class Settings(NamedTuple):
    """Ranks and scales of an adapter's modules."""

    path: Path
    rank: int
    alpha: float
    root: bool  # the scale is alpha / sqrt(rank), not alpha / rank (arXiv:2312.03732)
    ranks: Mapping[str, int]  # by pattern of the module's name
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None  # ends of modules' names; None: any
    layers: frozenset[int] | None

    def rank_of(self, module: str) -> int:
        """The inner size of a module's factors."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor of B @ A in a module's kernel."""
        rank = self.rank_of(module)
        return self.alphas.get(_pattern(self.alphas, module), self.alpha) / (rank**0.5 if self.root else rank)

    def check_target(self, module: str) -> None:
        """Raises where these settings do not have the module adapted."""
        targets = self.targets
        if targets is not None and not any(module == t or module.endswith("." + t) for t in targets):
            self._contradicted(module, f"target_modules {', '.join(targets)}"[:200])
        layer = re.search(r"\.(\d{1,9})\.", module)
        if self.layers is not None and layer and int(layer[1]) not in self.layers:
            self._contradicted(module, f"layers_to_transform {sorted(self.layers)}"[:200])

    def _contradicted(self, module: str, setting: str) -> None:
        raise ValueError(
            f"{self.path}: got factors of {module} beside it, and {setting}; expected factors of those "
            "modules alone. Get both files of one adapter."
        )


def _pattern(patterns: Mapping[str, Any], module: str) -> str:
    """The first pattern that a module's name, or its end after a dot, matches; "" without one."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), "")


def read_settings(folder: Path) -> Settings:
    """The settings of an adapter's folder."""
    path = folder / CONFIG
    config = read_object(path)

    def refuse(name: str, expected: str) -> None:
        raise ValueError(
            f"{path}: got {name} {str(config.get(name))[:80]!r}; expected {expected}. Take another adapter, "
            "or merge it with PEFT."
        )

    def number(name: str, value: Any, kinds: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            refuse(name, "numbers")
        return value

    if config.get("peft_type") != "LORA":
        refuse("peft_type", "'LORA', the only kind that is followed")
    if config.get("bias", "none") != "none":
        refuse("bias", "'none', the only value that is followed")
    if not any(config.get("init_lora_weights", True) is start for start in STARTS[:2]) and (
        config["init_lora_weights"] not in STARTS[2:]
    ):
        refuse("init_lora_weights", f"one of {', '.join(map(str, STARTS))}, which leave the base as it is")
    for name, value in config.items():
        if name not in FREE | FOLLOWED and value not in (None, False, [], {}):
            refuse(name, "none, as it is not followed")
    ranks, alphas = (_patterns(path, config, name) for name in ("rank_pattern", "alpha_pattern"))
    for name, values, kinds in (("rank_pattern", ranks, int), ("alpha_pattern", alphas, (int, float))):
        for value in values.values():
            number(name, value, kinds)
    rank, alpha = (
        number("r", config.get("r", 8), int),
        number("lora_alpha", config.get("lora_alpha", 8), (int, float)),
    )
    if min(rank, *ranks.values(), rank) < 1:
        refuse("r" if rank < 1 else "rank_pattern", "ranks of at least 1")
    if not isinstance(config.get("use_rslora", False), bool):
        refuse("use_rslora", "true or false")
    targets = config.get("target_modules")
    if not isinstance(targets, str | list | None) or not all(isinstance(t, str) for t in targets or []):
        refuse("target_modules", "names, or a regular expression")
    layers = config.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if layers is not None and not (isinstance(layers, list) and all(type(n) is int for n in layers)):
        refuse("layers_to_transform", "indices of layers")
    return Settings(
        path,
        rank,
        float(alpha),
        config.get("use_rslora", False),
        ranks,
        {name: float(value) for name, value in alphas.items()},
        tuple(targets) if isinstance(targets, list) else None,
        frozenset(layers) if layers else None,
    )


def _patterns(path: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict) or len(patterns) > 10_000:
        raise ValueError(f"{path}: got {name} {str(patterns)[:80]}; expected an object. Correct the file.")
    for pattern in patterns:
        try:
            sound = bool(PATTERN.fullmatch(pattern)) and pattern.count("*") <= 2 and ")*" not in pattern
            re.compile(pattern)
        except re.error:
            sound = False
        if not sound:
            raise ValueError(
                f"{path}: got the pattern {pattern[:80]!r} in {name}; expected names of modules, with at "
                "most two '.*'. Write the names out."
            )
    return patterns
