"""The cells of a table as numbers, dates and categories, whatever file they are from.

CSV has only text, JSON and Parquet have types; "3.0" and 3 are the same category, and nothing, na, n/a, nan,
null and none are missing values.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

from jaxmodels.data.formats.columns import MISSING

DAY = datetime.timedelta(days=1)
EPOCH = datetime.datetime(1970, 1, 1)
WHOLE = re.compile(r"(-?\d+)\.0+")  # 3.0


def number_of(value: Any) -> float | None:
    """A cell as a number, None where it is missing; a ValueError for what is no finite number."""
    if _absent(value):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads 1_000 as a number; no table means that
        raise ValueError(value)
    try:
        number = float(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(value)) from error
    if not math.isfinite(number):
        raise ValueError(str(value))
    return number


def date_of(value: Any) -> float | None:
    """A cell as days since 1970, None where it is missing; a ValueError for what is no date of ISO 8601."""
    if _absent(value):
        return None
    text = str(value).strip()
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(text)
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - EPOCH) / DAY


def level_of(value: Any) -> str | None:
    """A cell as the name of a category, None where it is missing."""
    if _absent(value):
        return None
    text = str(value).strip()
    if isinstance(value, bool) or text.lower() in ("true", "false"):
        return text.lower()
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _absent(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))
