"""A server in a thread, and models for it that need no training."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from serving.engine_fake import EchoEngine

from jaxmodels import Decoder, Model, Predictor
from jaxmodels.data.formats.images import open_image
from jaxmodels.serving.chat_template import ChatTemplate
from jaxmodels.serving.limits import Limits
from jaxmodels.serving.served import Served
from jaxmodels.serving.server import Server, listen

TEMPLATE = """\
{%- for message in messages %}
{{- '[' + message.role + ']' + message.content }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"""

BYTES = Decoder(  # a token is a byte
    read=lambda params, extra, tokens_BT, count_B, length: (jnp.zeros((len(tokens_BT), 256)), {}),
    write=lambda params, extra, tokens_B, cache: (jnp.zeros((len(tokens_B), 256)), cache),
    encode=lambda text: list(text.encode()),
    decode=lambda tokens: bytes(tokens).decode("utf-8", "replace"),
    length=512,
)


def echo(name="echo", *, template=TEMPLATE, **options):
    """A model that says the prompt again."""
    model = Model(Path(name), {}, {}, decoder=BYTES)
    chat = ChatTemplate(template, {}, Path("template")) if template else None
    return Served(name, model, EchoEngine(BYTES, **options), chat)


def _letters(text):
    return {"x": np.frombuffer(text.encode().ljust(8)[:8], np.uint8), "mask": np.ones(len(text.split()))[:8]}


def _row(row):
    try:
        return {"x": np.array([float(row["a"]), len(row["b"])], np.float32)}
    except (KeyError, TypeError, ValueError):
        raise ValueError("got a row without a number in a; expected a and b. Write them") from None


def _sized(file):
    assert isinstance(file, io.BytesIO), "no request may name a file"
    return {"x": np.array(open_image(file).size, np.float32)}


def _drawn(file, prediction):
    return np.asarray(open_image(file))[::-1].copy()


def _heard(file):
    import soundfile

    assert isinstance(file, io.BytesIO), "no request may name a file"
    try:
        samples, rate = soundfile.read(file)
    except soundfile.LibsndfileError:
        raise ValueError("got no sound; expected a WAV file. Send one") from None
    return {"x": np.array([len(samples) / rate], np.float32)}


def same(params, extra, batch):
    return batch["x"].astype(jnp.float32)


def predicting(name, predictor):
    return Served(name, Model(Path(name), {}, {}, predictor))


def embedder():
    report = {"report": lambda x: {"embedding": [float(y) for y in x]}}
    read = lambda text: {"x": _letters(text)["x"]}  # noqa: E731
    return predicting("letters", Predictor(read, same, **report, input="text"))


def summer():
    return predicting(
        "sums", Predictor(_row, same, lambda x: {"sum": float(x.sum())}, input="row", fields=("a", "b"))
    )


def sizer():
    def report(x):
        return {"width": float(x[0]), "height": float(x[1])}

    return predicting("sizes", Predictor(_sized, same, report, _drawn, input="image"))


def listener():
    return predicting("seconds", Predictor(_heard, same, lambda x: {"seconds": float(x[0])}, input="sound"))


@contextlib.contextmanager
def hosted(*models, limits=Limits(), slots=2, **options):  # noqa: B008
    """A running server of these models."""
    with listen("127.0.0.1", 0) as socket:
        server = Server(models, socket, limits=limits, slots=slots, **options)
        thread = threading.Thread(target=server.run)
        thread.start()
        assert server.ready.wait(10)
        try:
            yield server
        finally:
            server.end()
            thread.join(20)
            assert not thread.is_alive()
