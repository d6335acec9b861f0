"""The tokens of Whisper that are no text: beginning and end, languages, tasks, times.

Section 2.3 of arXiv:2212.04356.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxmodels import choices

ENGLISH = 51864  # tokens of the models of English alone
Task = Literal["transcribe", "translate"]


class Symbols(NamedTuple):
    """Their numbers in a vocabulary. Text has the tokens below `end`, a time each token from `times` on."""

    end: int
    start: int
    previous: int  # before the text of the window before
    no_speech: int
    no_times: int
    tasks: Mapping[str, int]
    languages: Mapping[str, int]  # by code, such as "en"
    multilingual: bool
    suppressed: tuple[int, ...] = ()  # never written
    first_suppressed: tuple[int, ...] = ()  # never written first

    @property
    def times(self) -> int:
        """The token of 0 s; each one after it is 0.02 s later."""
        return self.no_times + 1

    @classmethod
    def of(
        cls,
        token: Callable[[str], int | None],
        decode: Callable[[Sequence[int]], str],
        vocabulary: int,
        settings: Mapping[str, Any],
    ) -> Symbols:
        """By the pieces of a tokenizer. settings: of generation_config.json, or else of config.json."""

        def number(*pieces: str) -> int:
            found = next((n for n in map(token, pieces) if n is not None), None)
            if found is None or found >= vocabulary:
                raise ValueError(
                    f"the tokenizer: got no token {pieces[0]!r} below {vocabulary:,}; expected Whisper's "
                    "special tokens. Take the model's own tokenizer.json."
                )
            return found

        start, translate = number("<|startoftranscript|>"), number("<|translate|>")
        languages = {decode([i]).strip()[2:-2]: i for i in range(start + 1, translate)}
        multilingual = settings.get("is_multilingual", vocabulary != ENGLISH)
        if not isinstance(multilingual, bool):
            raise ValueError(
                f"generation_config.json: got is_multilingual {multilingual!r}; expected true or false. "
                "Correct the file."
            )
        return cls(
            end=number("<|endoftext|>"),
            start=start,
            previous=number("<|startofprev|>"),
            no_speech=number("<|nospeech|>", "<|nocaptions|>"),
            no_times=number("<|notimestamps|>"),
            tasks={"transcribe": number("<|transcribe|>"), "translate": translate},
            languages={name: i for name, i in languages.items() if name != "transcribe"},
            multilingual=multilingual,
            suppressed=_tokens(settings, "suppress_tokens", vocabulary),
            first_suppressed=_tokens(settings, "begin_suppress_tokens", vocabulary),
        )

    def prompt(self, language: str, task: Task, *, times: bool = True) -> list[int]:
        """The tokens before those of a window's text."""
        choices.check("transcribe", "task", task, Task)
        self.check(language, task)
        found = [self.start]
        if self.multilingual:
            found += [self.languages[language], self.tasks[task]]
        return found if times else [*found, self.no_times]

    def check(self, language: str, task: Task) -> None:
        """Raises a ValueError where the model lacks this language, "" being any, or this task."""
        known = sorted(self.languages) if self.multilingual else ["en"]
        if language and language not in known:
            shown = ", ".join(known)
            raise ValueError(
                f"got the language {language!r}; expected one of {shown}, the model's. Take one of those."
            )
        if task == "translate" and not self.multilingual:
            raise ValueError(
                "got the task 'translate' for a model of English alone; expected a multilingual "
                "one. Take another model, or do not translate."
            )


def _tokens(settings: Mapping[str, Any], name: str, vocabulary: int) -> tuple[int, ...]:
    values = settings.get(name)
    values = [] if values is None else values
    if not isinstance(values, list) or not all(type(x) is int and -1 <= x < vocabulary for x in values):
        raise ValueError(
            f"the settings of generation: got {name} {str(values)[:80]}; expected tokens below "
            f"{vocabulary:,}. Correct the file."
        )
    return tuple(x for x in values if x >= 0)
