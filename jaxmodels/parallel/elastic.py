"""A mesh for the devices that are there: the data axis takes what the others leave."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from jaxmodels.parallel.axes import BATCH

AXIS = re.compile(r"\s*(\w+)\s*=\s*(\d+)\s*")


def fit(mesh: str, devices: int, batches: Sequence[int], *, every: bool) -> str:
    """The mesh as text with the data axis as large as `devices` and the batches allow; all other axes stay.

    batches: what must divide by the number of parts. every: all devices must be used, as in many processes.
    """
    parts = [AXIS.fullmatch(part) for part in mesh.split(",")] if mesh else []
    if None in parts:
        return mesh  # not a mesh; where it is made, that is said
    sizes = {part[1]: int(part[2]) for part in parts if part}
    rest = math.prod(size for axis, size in sizes.items() if axis != "data")
    split = math.prod(size for axis, size in sizes.items() if axis != "data" and axis in BATCH)
    most = devices // rest if rest else 0
    if not most:
        return mesh
    fits = (n for n in range(most, 0, -1) if all(batch % (n * split) == 0 for batch in batches))
    data = most if every else next(fits, most)
    sizes = {**({} if "data" in sizes else {"data": data}), **sizes, "data": data}
    return ",".join(f"{axis}={size}" for axis, size in sizes.items())
