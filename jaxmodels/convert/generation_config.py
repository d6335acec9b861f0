"""What a folder asks for in how its texts are drawn. That is the caller's choice here, so it is said, and not followed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Settings of transformers with the option that does the same, and the values that ask for nothing.
DRAWN: dict[str, tuple[str, tuple[Any, ...]]] = {  # of no effect where do_sample is false
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
USUAL = {"temperature": 1, "top_k": 50}  # transformers' own defaults, which old files repeat
WITHOUT: dict[str, tuple[Any, ...]] = {  # no option does it
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
NOTES = {  # where an option does not mean the same
    "length_penalty": "by another formula",
    "max_length": "it counts the tokens before the text too",
}


class Asked(NamedTuple):
    """The settings of a file that says how texts are drawn, generation_config.json, or config.json where that is absent."""

    path: Path = Path()
    settings: Mapping[str, Any] = {}

    def unmet(self, given: Collection[str]) -> str:
        """One sentence on what is asked for and not done, with the options that do it; "" where there is nothing.

        given: names of the options (of jaxmodels.options.Sampling) that the caller chose.
        """
        wanted = {name: option for name, option in self._wanted(given).items() if option not in given}
        if not wanted:
            return ""
        words: dict[str, str] = {}  # by option, so that each is named once
        for name, option in wanted.items():
            if option is not None:
                words[option] = self._option(name, option, "beams" in {*wanted.values(), *given})
        names = ", ".join(f"{name} {str(self.settings[name])[:80]}" for name in wanted)
        bare = ", ".join(name for name, option in wanted.items() if option is None)
        ways = [f"give {' '.join(words.values())}"] if words else []
        ways += [f"no option does {bare}"] if bare else []
        return f"{self.path} asks for {names}, which is done only where options say it: {'; '.join(ways)}"

    def _wanted(self, given: Collection[str]) -> dict[str, str | None]:
        """Settings that ask for something, with the option of each."""
        draws = self.settings.get("do_sample")
        beams = self._says("num_beams", (None, 1)) or "beams" in given
        found: dict[str, str | None] = {}
        if draws is not None and not (beams and draws is False):
            found["do_sample"] = "temperature"
        for name, (option, plain) in DRAWN.items() if draws is not False else ():
            usual = (USUAL[name],) if draws is None and name in USUAL else ()
            if self._says(name, (*plain, *usual)):
                found[name] = option
        for name, (option, plain) in ALWAYS.items():
            if name == "length_penalty" and not beams:
                continue
            if self._says(name, plain) and not (name == "max_length" and "max_new_tokens" in found):
                found[name] = option
        return {**found, **{name: None for name, plain in WITHOUT.items() if self._says(name, plain)}}

    def _says(self, name: str, plain: tuple[Any, ...]) -> bool:
        return self.settings.get(name) not in plain

    def _option(self, name: str, option: str, beams: bool) -> str:
        """An option as it is typed, with the value that the file says where that is a number of the same meaning."""
        value = self.settings[name]
        if name == "do_sample":
            value = {True: 1, False: 0}.get(value) if isinstance(value, bool) else None
        words = f"--{option.replace('_', '-')}"
        if name in NOTES:
            return f"{words} ({NOTES[name]})"
        if type(value) in (int, float):
            words += f" {str(value)[:80]}"
        return f"{words} (not with --beams)" if beams and name == "repetition_penalty" else words
