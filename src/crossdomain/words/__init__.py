"""Measured numbers in words and tables, for the pages: every number comes from the data given. A module a chapter."""

from __future__ import annotations

import numpy as np

from crossdomain import stats


def points(interval: stats.Interval, *, sign: bool = False) -> str:
    """A score or a difference in points, with its 95 % interval where there is one."""
    number = f"{interval.value:+.1f}" if sign else f"{interval.value:.1f}"
    number = number.replace("-", "−")
    if np.isnan(interval.low):
        return number
    return f"{number} [{interval.low:.1f}, {interval.high:.1f}]".replace("-", "−")


def sure(interval: stats.Interval) -> bool:
    """Whether the interval is known and leaves out zero."""
    return bool(interval.low > 0 or interval.high < 0)
