"""Drawing, and nothing else: every function takes tidy data and returns a figure; a module a chapter.

A domain has the same colour in every figure of the book. The palette (Okabe and Ito's) is safe for colour-blind readers.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"]
INK, QUIET = "#222222", "#8a8a8a"


def theme() -> None:
    """Set the look of all figures."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    mpl.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110, "svg.hashsalt": "crossdomain"}
    )


def colours(domains: Sequence[str]) -> dict[str, str]:
    """The colour of each domain; those of the paper keep theirs whatever else a run has."""
    known = ["math", "code", "qa", "cw"]
    order = [*known, *(d for d in domains if d not in known)]
    return {domain: PALETTE[order.index(domain) % len(PALETTE)] for domain in domains}


def seed_lines(axis: Axes, wide: pd.DataFrame, colour: str, label: str | None = None, **style: Any) -> None:
    """A thin line a seed (a column of `wide`, against its index), and their mean in bold with `style`."""
    dashes = {"ls": style["ls"]} if "ls" in style else {}
    axis.plot(wide.index, wide, color=colour, lw=0.7, alpha=0.5, **dashes)
    axis.plot(wide.index, wide.mean(axis=1), color=colour, label=label, **{"lw": 2.4, **style})


def _png(figure: Figure) -> bytes:
    """The figure in 256 colours: a third of the size in full colour, and no difference to the eye."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=160, bbox_inches="tight")
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def show(figure: Figure, alt: str, path: Path | None = None) -> HTML:
    """A figure as a page shows it, with text for those who cannot see it; saved as PNG if a path is given."""
    image = _png(figure)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return HTML(
        f'<img class="figure" style="max-width:100%;height:auto" alt="{html.escape(alt, True)}" src="{source}">'
    )
