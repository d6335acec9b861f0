"""load(): a run, or a folder of weights, as a model that can be asked, exported and served."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxmodels.inference.model import Model
from jaxmodels.options import CheckpointOptions
from jaxmodels.runs.open_run import model_variables, open_run, precision_of
from jaxmodels.runs.origin import is_weights
from jaxmodels.step import cast_floats


def load(
    source: str | Path,
    *,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    adapter: str | Path | None = None,
    adapters: Mapping[str, str | Path] = {},
    warn: Any = print,
) -> Model:
    """The model of a run's folder, or of a folder of weights from elsewhere.

    adapter: a folder of PEFT, merged into a folder's weights. adapters: such folders by names, kept apart;
        the model's decoder has another one for each row (see decoding.adapters).
    step: of the run's checkpoint; -1 takes the best where the experiment names one, else the newest.
    A run's folder is code, which is executed; a folder of weights never is (see runs.origin).
    """
    source = Path(source)
    if is_weights(source):
        model = _weights(source, adapter, adapters)
        params = cast_floats(model.params, None if precision in ("run", "float32") else jnp.dtype(precision))
        if model.transcriber is not None:
            model.transcriber.params = params
        return dataclasses.replace(model, params=params)
    if adapter is not None or adapters:
        raise ValueError(
            f"{source}: got an adapter for a run; expected a folder of weights, whose names the adapter's "
            "are. Leave it out."
        )
    experiment, state, step = open_run(source, step=step, mesh=mesh, parts="model", warn=warn)
    params, extra = model_variables(experiment, state, precision_of(source, precision))
    return Model(source, params, extra, experiment.predictor, experiment.decoder, experiment.task, step)


def _weights(source: Path, adapter: str | Path | None, adapters: Mapping[str, str | Path]) -> Model:
    """The model of a folder with config.json, or of a llama2.c file: of texts, or of images."""
    from jaxmodels.convert.image import open_image_model
    from jaxmodels.convert.load import generates, hears
    from jaxmodels.convert.peft import load_adapter
    from jaxmodels.convert.text import read_text_model
    from jaxmodels.convert.text_encoder import open_text_encoder, reads_texts
    from jaxmodels.data.drawing import captioned
    from jaxmodels.data.formats.audio_file import read_audio
    from jaxmodels.data.formats.json_file import read_object
    from jaxmodels.decoding.adapters import with_adapters
    from jaxmodels.inference.transcriber import open_transcriber
    from jaxmodels.speech.predictor import predictor

    if hears(source):
        if adapter is not None or adapters:
            raise ValueError(f"{source}: got an adapter for a model that hears; expected none. Leave it out.")
        transcriber = open_transcriber(source)
        spoken = predictor(transcriber, read_audio)
        return Model(source, transcriber.params, {}, spoken, transcriber=transcriber)
    if generates(source):
        text = read_text_model(source, adapter=adapter)
        decoder, params = text.decoder, text.params
        names: tuple[str, ...] = ()
        if adapters:
            by_name = {name: load_adapter(folder, text.model) for name, folder in adapters.items()}
            decoder, params, names = with_adapters(decoder, params, by_name)
        return Model(source, params, {}, decoder=decoder, task=text.task, adapters=names)
    if adapters:
        raise ValueError(
            f"{source}: got adapters by names for a model that does not generate text; expected one adapter, "
            "which is merged. Give one."
        )
    if reads_texts(read_object(source / "config.json")):
        texts = open_text_encoder(source, adapter=adapter)
        return Model(source, texts.params, {}, predictor=texts.predictor)
    image = open_image_model(source, caption=captioned, adapter=adapter)
    return Model(source, image.params, image.extra, predictor=image.predictor)
