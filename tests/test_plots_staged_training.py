"""Figures draw the data they are given, in the colours the book keeps."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from crossdomain import plots
from crossdomain.plots import staged_training as draw

TITLES = {"code": "Code", "math": "Math"}


def test_a_domain_keeps_its_colour_whatever_else_is_drawn() -> None:
    alone, among = plots.colours(["math"]), plots.colours(["back", "cw", "math", "code"])
    assert alone["math"] == among["math"]
    assert len({*among.values()}) == 4


def test_the_story_draws_one_bold_line_a_domain_through_the_mean_of_the_seeds() -> None:
    curves = pd.DataFrame(
        [
            {"seed": s, "stage": "code", "trained": "code", "total": t, "domain": d, "score": 10 * s + t}
            for s in (0, 1)
            for t in (0, 5)
            for d in TITLES
        ]
    )
    axis = draw.sequence_story(curves, TITLES).axes[0]
    bold = {line.get_label(): line for line in axis.lines if line.get_linewidth() > 2}
    assert set(bold) == set(TITLES.values())
    assert np.asarray(bold["Math"].get_ydata()).tolist() == [5, 10]
    assert to_hex(bold["Math"].get_color()).upper() == plots.colours(["math"])["math"]


def test_the_heatmap_annotates_scores_with_half_widths() -> None:
    rows = [
        {"role": r, "domain": d, "split": "test", "decoding": "T=1", "score": 50.0, "low": 45.0, "high": 55.0}
        for r in ("base", "after Code")
        for d in TITLES
    ]
    axis = draw.score_heatmap(pd.DataFrame(rows), TITLES).axes[0]
    assert {text.get_text() for text in axis.texts} == {"50.0 ±5.0"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["base", "after Code"]


def test_shown_figures_carry_their_text_and_are_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    logs = pd.DataFrame({"role": "after Math", "domain": "math", "seed": 0, "step": [1, 2], "reward": [0.1, 0.2]})
    shown = plots.show(draw.learning_curves(logs, TITLES), 'a "quoted" text', tmp_path / "figures" / "x.png")
    assert 'alt="a &quot;quoted&quot; text"' in shown.data
    assert (tmp_path / "figures" / "x.png").read_bytes().startswith(b"\x89PNG")


def test_fewer_colours_make_a_figure_smaller_and_look_the_same(tmp_path: Path) -> None:
    grid = pd.DataFrame({"x": np.arange(400) % 20, "y": np.arange(400) // 20, "value": np.linspace(-1, 1, 400)})
    figure, axis = plt.subplots()
    axis.imshow(grid.pivot(index="y", columns="x", values="value"), cmap="RdBu")
    figure.savefig(tmp_path / "full.png", dpi=160, bbox_inches="tight")
    plots.show(figure, "a smooth map", tmp_path / "shown.png")
    full, shown = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), int) for name in ("full", "shown"))
    assert full.shape == shown.shape
    off = np.abs(full - shown).max(2)  # of 255 levels, pixel by pixel
    assert off.mean() < 1 and (off > 16).mean() < 0.005
    assert (tmp_path / "shown.png").stat().st_size < (tmp_path / "full.png").stat().st_size
