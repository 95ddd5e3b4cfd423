"""The drawing shows a refresh that obeys the statements it illustrates."""

from pathlib import Path

import numpy as np
import pytest

from crossdomain import bounds
from crossdomain.plots import theory as plots_theory


def test_the_path_drawn_is_a_refresh_that_bends_back_along_the_steep_direction_alone() -> None:
    axis = plots_theory.conflict_picture().axes[0]
    refresh = next(line for line in axis.lines if line.get_label() == "refresh")
    path = np.column_stack([np.asarray(refresh.get_xdata()), np.asarray(refresh.get_ydata())])
    steep = np.array([-np.sin(plots_theory.TILT), np.cos(plots_theory.TILT)])
    flat = np.array([steep[1], -steep[0]])
    assert (path[0] @ steep, path[0] @ flat) == pytest.approx(plots_theory.UPDATE)
    mu, steps = plots_theory.CURVATURES[0], plots_theory.STEPS
    bound = bounds.contraction_bound(plots_theory.ALPHA, mu, mu, steps, plots_theory.UPDATE[0])
    np.testing.assert_allclose(path @ steep, bound, rtol=1e-12)  # attained: one direction, no leakage
    assert path[-1] @ flat > 0.9 * plots_theory.UPDATE[1]


def test_the_drawing_is_saved_with_the_names_of_its_parts(tmp_path: Path) -> None:
    plots_theory.save_conflict_picture(tmp_path / "figures" / "conflict.png")
    assert (tmp_path / "figures" / "conflict.png").read_bytes().startswith(b"\x89PNG")
    texts = " ".join(text.get_text() for text in plots_theory.conflict_picture().axes[0].texts)
    for name in (r"$\theta_A$", r"$\theta_{AB}$", r"$P\delta$", r"$Q\delta$", r"$\delta$", "refresh"):
        assert name in texts
