"""What the book's page on scaling says of the paper's profile: estimates of `crossdomain plan`, by number of GPUs."""

from __future__ import annotations

import pandas as pd

from crossdomain.plan import plan
from crossdomain.profiles import load_profile
from crossdomain.throughput import GPUS


def table(gpus: tuple[int, ...] = (1, 8, 16), kind: str = "h100") -> str:
    """A Markdown table of estimates for one seed of chapter 1 at the paper's scale, a row a number of GPUs."""
    rows = []
    for count in gpus:
        found = plan(load_profile("paper"), count, GPUS[kind])
        used = found.memory["gigabytes"].sum()
        rows.append(
            {
                f"GPUs ({kind.upper()})": count,
                "hours": f"{found.hours:,.0f}" if found.fits else "",
                "GPU-hours": f"{found.hours * count:,.0f}" if found.fits else "",
                "memory a GPU": f"{used:.0f} of {found.capacity:.0f} GB" + ("" if found.fits else ": does not fit"),
            }
        )
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
