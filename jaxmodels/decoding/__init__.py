"""Decoding: text from any model that offers a `Decoder`."""

from jaxmodels.decoding.sample import generate_text

__all__ = ["generate_text"]
