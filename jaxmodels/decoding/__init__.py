"""Decoding: text from any model that offers a `Decoder`."""

from jaxmodels.decoding.beam import Beams, beam
from jaxmodels.decoding.generate import Generation, generate

__all__ = ["Beams", "Generation", "beam", "generate"]
