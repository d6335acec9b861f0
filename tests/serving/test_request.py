"""Streams of pieces."""

import pytest

from jaxmodels.serving.request import Piece, Stream

pytestmark = pytest.mark.fast


def test_a_stream_gives_its_pieces_in_order_and_ends_after_the_one_that_has_a_finish():
    stream = Stream()
    pieces = [Piece("a", [1], [-1.0]), Piece("b", [2], [-2.0], "stop")]
    for piece in [*pieces, Piece("never", [], [])]:
        stream.put(piece)
    assert list(stream) == pieces
    with pytest.raises(StopIteration):
        stream.get(0)


def test_waiting_for_a_piece_ends_in_a_timeout():
    with pytest.raises(TimeoutError, match="within 0"):
        Stream().get(0.001)


def test_cancelling_tells_the_engine():
    told = []
    Stream(lambda: told.append(1)).cancel()
    assert told == [1]
