"""Sampling settings of a folder: the caller chooses them here, so they are reported and not followed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Settings of transformers, the option that does the same, and the values that change nothing.
SAMPLING: dict[str, tuple[str, tuple[Any, ...]]] = {  # without effect where do_sample is false
    "temperature": ("temperature", (None,)),
    "top_k": ("top_k", (None, 0)),
    "top_p": ("top_p", (None, 1)),
    "min_p": ("min_p", (None, 0)),
}
ALWAYS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "repetition_penalty": ("repetition_penalty", (None, 1)),
    "num_beams": ("beams", (None, 1)),
    "length_penalty": ("alpha", (None, 1)),
    "max_new_tokens": ("tokens", (None,)),
    "max_length": ("tokens", (None, 20)),  # transformers' own default, which old files repeat
}
DEFAULTS = {"temperature": 1, "top_k": 50}  # transformers' own defaults, which old files repeat
UNSUPPORTED: dict[str, tuple[Any, ...]] = {  # no option does it
    "early_stopping": (None, False),
    "num_beam_groups": (None, 1),
    "diversity_penalty": (None, 0),
    "typical_p": (None, 1),
    "epsilon_cutoff": (None, 0),
    "eta_cutoff": (None, 0),
    "penalty_alpha": (None, 0),
    "encoder_repetition_penalty": (None, 1),
    "encoder_no_repeat_ngram_size": (None, 0),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1),
}
NOTES = {  # where an option means something slightly different
    "length_penalty": "by another formula",
    "max_length": "it counts the tokens before the text too",
}


class GenerationSettings(NamedTuple):
    """The settings of generation_config.json, or of config.json where that is absent."""

    path: Path = Path()
    settings: Mapping[str, Any] = {}

    def unmet(self, given: Collection[str]) -> str:
        """One sentence on settings that are not followed, with the options that do the same; "" without any.

        given: names of the options that the caller chose, such as temperature.
        """
        unmet = {name: option for name, option in self._set(given).items() if option not in given}
        if not unmet:
            return ""
        words: dict[str, str] = {}  # by option, so that each is named once
        for name, option in unmet.items():
            if option is not None:
                words[option] = self._option(name, option, "beams" in {*unmet.values(), *given})
        names = ", ".join(f"{name} {str(self.settings[name])[:80]}" for name in unmet)
        without = ", ".join(name for name, option in unmet.items() if option is None)
        ways = [f"give {' '.join(words.values())}"] if words else []
        ways += [f"no option does {without}"] if without else []
        return f"{self.path} asks for {names}, which is done only where options say it: {'; '.join(ways)}"

    def _set(self, given: Collection[str]) -> dict[str, str | None]:
        """Settings that would change something, with the option of each."""
        sample = self.settings.get("do_sample")
        beams = self._changes("num_beams", (None, 1)) or "beams" in given
        found: dict[str, str | None] = {}
        if sample is not None and not (beams and sample is False):
            found["do_sample"] = "temperature"
        for name, (option, neutral) in SAMPLING.items() if sample is not False else ():
            default = (DEFAULTS[name],) if sample is None and name in DEFAULTS else ()
            if self._changes(name, (*neutral, *default)):
                found[name] = option
        for name, (option, neutral) in ALWAYS.items():
            if name == "length_penalty" and not beams:
                continue
            if self._changes(name, neutral) and not (name == "max_length" and "max_new_tokens" in found):
                found[name] = option
        unsupported = [name for name, neutral in UNSUPPORTED.items() if self._changes(name, neutral)]
        return {**found, **dict.fromkeys(unsupported)}

    def _changes(self, name: str, neutral: tuple[Any, ...]) -> bool:
        return self.settings.get(name) not in neutral

    def _option(self, name: str, option: str, beams: bool) -> str:
        """An option as it is typed, with the file's value where that is a number of the same meaning."""
        value = self.settings[name]
        if name == "do_sample":
            value = {True: 1, False: 0}.get(value) if isinstance(value, bool) else None
        words = f"--{option.replace('_', '-')}"
        if name in NOTES:
            return f"{words} ({NOTES[name]})"
        if type(value) in (int, float):
            words += f" {str(value)[:80]}"
        return f"{words} (not with --beams)" if beams and name == "repetition_penalty" else words
