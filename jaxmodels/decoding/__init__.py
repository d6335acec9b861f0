"""Decoding: text from any model that offers a `Decoder`."""

from jaxmodels.decoding.beam import Beams, beam
from jaxmodels.decoding.write import Written, write

__all__ = ["Beams", "Written", "beam", "write"]
