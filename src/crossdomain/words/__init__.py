"""Measured numbers in words and tables, for the pages: every number comes from the data given. A module a chapter."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from crossdomain import stats

MOST_DIGITS = 4  # after the point, of numbers that fewer would show as zero


def plain(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A number with a minus sign that reads as one."""
    rounded = round(value, digits) + 0.0  # no minus before a zero
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def millions(count: int) -> str:
    """A count of parameters to two digits or more, such as `0.79 million` and `135 million`."""
    return f"{count / 1e6:.2g} million" if count < 1e8 else f"{count / 1e6:.0f} million"


def number(interval: stats.Interval, digits: int = 2, *, sign: bool = False) -> str:
    """A value with its 95 % interval where there is one, such as `0.12 [0.08, 0.16]`.

    One that is surely not zero is not written as zero: it gets up to `MOST_DIGITS` digits.
    """
    if interval.value and round(interval.value, digits) == 0 and (np.isnan(interval.low) or sure(interval)):
        first = -math.floor(math.log10(abs(interval.value)))
        digits = first if first <= MOST_DIGITS else digits
    text = plain(interval.value, digits, sign=sign)
    if not np.isnan(interval.low):
        text += f" [{plain(interval.low, digits)}, {plain(interval.high, digits)}]"
    return text


def points(interval: stats.Interval, *, sign: bool = False) -> str:
    """A score or a difference in points, with its 95 % interval where there is one."""
    return number(interval, 1, sign=sign)


def seeds(table: pd.DataFrame) -> str:
    """How many seeds a table has, in words."""
    count = table["seed"].nunique()
    return "one seed" if count == 1 else f"{count} seeds"


def sure(interval: stats.Interval) -> bool:
    """Whether the interval is known and leaves out zero."""
    return bool(interval.low > 0 or interval.high < 0)
