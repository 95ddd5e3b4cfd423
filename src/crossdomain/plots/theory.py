"""The drawing of the theory chapter: a conflict of two parameters, made by gradient descent on a quadratic loss.

Nothing in it is measured; it shows what the statements mean, on a loss for which they can be seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossdomain.plots import INK, PALETTE, QUIET

Array = NDArray[np.float64]

CURVATURES = (9.0, 0.25)  # of L_A along the steep direction, which spans the conflict subspace, and along the flat one
TILT = np.deg2rad(25)  # of the flat direction: no coordinate axis is special
UPDATE = (1.3, 2.6)  # δ along the steep and the flat direction
ALPHA, STEPS = 0.055, 6  # of the refresh
BEHIND_TEXT = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}


def conflict_picture() -> Figure:
    """An update by B across the level lines of L_A, split in Pδ and Qδ, and the path of a refresh."""
    steep, flat = np.array([-np.sin(TILT), np.cos(TILT)]), np.array([np.cos(TILT), np.sin(TILT)])
    H = CURVATURES[0] * np.outer(steep, steep) + CURVATURES[1] * np.outer(flat, flat)
    delta = UPDATE[0] * steep + UPDATE[1] * flat
    inside = (delta @ steep) * steep
    path = [delta]
    for _ in range(STEPS):
        path.append(path[-1] - ALPHA * H @ path[-1])

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axis = figure.subplots()
    _level_lines(axis, H, delta)
    conflict, update, refresh = PALETTE[1], PALETTE[0], PALETTE[2]
    _arrow(axis, np.zeros(2), delta, update, r"$\delta$, the update by B", (0.62, -0.5))
    _arrow(axis, np.zeros(2), inside, conflict, r"$P\delta$: steep, does harm", (-0.75, -0.2))
    _arrow(axis, inside, delta, QUIET, r"$Q\delta$: flat, does little", (-0.35, 0.28))
    points = np.array(path)
    axis.plot(points[:, 0], points[:, 1], "o-", color=refresh, lw=2.2, ms=5, label="refresh", zorder=4)
    axis.annotate(
        "refresh: back along $P$,\nhardly along $Q$",
        (points[2, 0], points[2, 1]),
        (points[2, 0] + 0.45, points[2, 1]),
        color=refresh,
        va="center",
        bbox=BEHIND_TEXT,
        arrowprops={"arrowstyle": "-", "color": refresh, "lw": 0.8},
    )
    for point, name, offset in ((np.zeros(2), r"$\theta_A$", (-0.1, -0.22)), (delta, r"$\theta_{AB}$", (0.02, 0.22))):
        axis.plot(*point, "o", color=INK, ms=6, zorder=5)
        axis.text(point[0] + offset[0], point[1] + offset[1], name, color=INK, ha="center", va="center", fontsize=13)
    axis.set_aspect("equal")
    axis.set(xlabel=r"one parameter, $\theta_1$", ylabel=r"another, $\theta_2$", xticks=[], yticks=[])
    axis.grid(visible=False)
    return figure


def save_conflict_picture(path: Path) -> None:
    """Draw it into a PNG file; its directory is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    conflict_picture().savefig(path, format="png", dpi=160, metadata={"Software": ""})


def _level_lines(axis: Axes, H: Array, delta: Array) -> None:
    """Ellipses of equal damage ½ xᵀHx; the one through θ_AB is drawn darker."""
    x, y = np.meshgrid(np.linspace(-1.9, 3.9, 221), np.linspace(-1.2, 2.9, 165))
    damage = (H[0, 0] * x**2 + 2 * H[0, 1] * x * y + H[1, 1] * y**2) / 2
    here = float(delta @ H @ delta) / 2
    levels = here * np.array([0.02, 0.08, 0.2, 0.4, 0.7, 1.0, 1.5])
    axis.contour(x, y, damage, levels=levels, colors=[QUIET], linewidths=np.where(levels == here, 1.6, 0.6), alpha=0.8)


def _arrow(axis: Axes, start: Array, end: Array, colour: str, text: str, offset: tuple[float, float]) -> None:
    axis.annotate(
        "",
        (end[0], end[1]),
        (start[0], start[1]),
        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 16},
        zorder=3,
    )
    middle = (start + end) / 2 + offset
    axis.text(middle[0], middle[1], text, color=colour, ha="center", va="center", bbox=BEHIND_TEXT)
