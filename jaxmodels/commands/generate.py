"""jaxmodels generate: a language model continues prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.options import CheckpointOptions

if TYPE_CHECKING:
    from jaxmodels.decoding import Generation
    from jaxmodels.experiment import Experiment
    from jaxmodels.interfaces import Decoder
    from jaxmodels.step import State


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How text is sampled."""

    prompt: tuple[str, ...] = ()
    """One or more texts to continue; by default the experiment's own prompt."""
    tokens: int = 200
    """At most this many new tokens. A text may be longer than the model's context.
    When that is full, generation continues from its newer half; of a longer prompt only the end is read.
    With --beams, prompt and tokens must fit into the context; a model with an encoder stops at its end."""
    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_k: int = 0
    """Sample from the k likeliest tokens; 0 from all."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Sample from the tokens whose probability is at least this fraction of the likeliest one's."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that have occurred become less likely. No effect with --beams."""
    stop: tuple[str, ...] = ()
    """Texts at which generation stops; they are cut off."""
    beams: int = 0
    """Take the best text of a beam search of this width instead of sampling."""
    alpha: float = 0.6
    """Exponent of the beam search's length penalty; 0 prefers short texts."""
    seed: int = 0
    """Seed of the samples."""
    adapter: str = ""
    """A folder of PEFT, whose LoRA adapter is merged into a folder's weights."""


def generate(
    run: str | Path,
    *,
    prompt: str | Sequence[str] | None = None,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    adapter: str | Path = GenerateOptions.adapter,
    warn: Any = print,
    **options: Any,
) -> list[Generation]:
    """What a run's model, or a folder of weights, generates after each prompt.

    options: see GenerateOptions, whose defaults they have. A text may be longer than the model's context:
        when that is full, generation continues from its newer half, and of a longer prompt only the end is
        read. With beams that is a ValueError; a model with an encoder stops at its end.
    adapter: a folder of PEFT, merged into a folder's weights.
    warn: called with what a folder's generation_config.json asks for and `options` leave open; it is not
        followed.
    """
    import jax.numpy as jnp

    from jaxmodels import decoding
    from jaxmodels.runs.open_run import open_run, precision_of
    from jaxmodels.runs.origin import is_weights
    from jaxmodels.step import cast_floats

    if is_weights(run):
        from jaxmodels.convert.text import read_text_model

        model = read_text_model(run, adapter=adapter or None)
        if unmet := model.generation.unmet(options):
            warn(unmet)
        params = cast_floats(model.params, None if precision in ("run", "float32") else jnp.dtype(precision))
        return decoding.generate(model.decoder, params, {}, _prompts(model.decoder, prompt), **options)
    if adapter:
        raise ValueError(
            f"{run}: got --adapter for a run; expected a folder of weights, whose names the adapter's are. "
            "Leave it out."
        )
    experiment, state, _ = open_run(run, step=step, mesh=mesh, parts="model", warn=warn)
    return sample(experiment, state, precision=precision_of(run, precision), prompt=prompt, **options)


def sample(
    experiment: Experiment,
    state: State,
    *,
    precision: str = "float32",
    prompt: str | Sequence[str] | None = None,
    **options: Any,
) -> list[Generation]:
    """What an experiment's model generates in this state after each prompt, by default its own."""
    from jaxmodels import decoding
    from jaxmodels.runs.open_run import model_variables

    if experiment.decoder is None:
        raise ValueError(
            "generate: got an experiment whose build() gives no decoder; expected one, to generate text. See "
            "jaxmodels.tasks.language"
        )
    params, extra = model_variables(experiment, state, precision)
    prompts = _prompts(experiment.decoder, prompt)
    return decoding.generate(experiment.decoder, params, extra, prompts, **options)


def _prompts(decoder: Decoder, prompt: str | Sequence[str] | None) -> list[str]:
    if prompt is None or (not isinstance(prompt, str) and not prompt):
        return [decoder.prompt]
    return [prompt] if isinstance(prompt, str) else list(prompt)
