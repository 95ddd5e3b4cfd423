"""Reference results in git: what a run leaves for `verify`, for the README's table, and for a book without training."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat

from crossdomain import paths
from crossdomain.run import Run

# Results that are kept: what claims are judged by, `verify` compares and pages quote; and what chapters show, except the
# logs of training and the tables with a row a tensor, which are large.
PROMOTED = (
    *("manifest.json", "claims.json", "checkpoints.csv", "costs.json", "costs_by_part.csv"),
    *("headline.json", "scores.csv", "scores_over_seeds.csv", "changes.csv", "against_the_paper.csv"),
    *("sequence_curves.csv", "refresh_curves.csv", "refresh_by_prompt.csv", "relearning.csv"),
    *("sparse_edits.json", "unchanged.csv", "edit_norms.csv", "neuron_overlap.csv", "neuron_stability.csv"),
    *("precision.csv",),
    *("route_overlap.json", "gradient_pairs.csv", "gradient_extremes.csv", "route_overlap.csv", "route_stability.csv"),
    *("update_directions.csv", "pair_damage.csv", "pair_predictors.csv", "pair_correlations.csv"),
    *("damage_theory.json", "damage_path.csv", "damage_controls.csv", "damage_cross.csv", "damage_drift.csv"),
    *("concentration_captured.csv", "concentration_summary.csv", "stationarity.csv", "ranking_by_length.csv"),
    *("pair_predictions.csv", "damage_correlations.csv"),
    *("refresh.json", "refresh_constants.csv", "refresh_curvature.csv", "refresh_contraction.csv"),
    *("refresh_descent.csv", "refresh_domains.csv", "refresh_grpo.csv", "refresh_budget.csv", "refresh_collateral.csv"),
    *("recovery_matrix.csv", "recovery_matrix_over_seeds.csv", "refresh_selectivity.csv"),
    *("rollback.json", "rollback_levels.csv", "rollback_frontier.csv", "rollback_damages.csv", "rollback_within.csv"),
    *("rollback_predicted.csv", "rollback_agreement.csv", "rollback_pairs.csv", "rollback_policies.csv"),
    *("alternating_refresh.json", "alternating_deviations.csv", "alternating_orders.csv"),
    *("alternating_objectives.csv", "alternating_descents.csv", "alternating_changes.csv", "alternating_totals.csv"),
    *("alternatives.json", "alternatives.csv", "alternatives_scores.csv", "alternatives_choices.csv"),
    *("orders_scores.csv", "orders.csv", "orders_ranking.csv", "orders_predicted.csv"),
)
FIGURES = ("story.png",)  # that pages show beside the notebooks' own


def directory(label: str) -> Path:
    """Where the reference results of a profile are, if there are any."""
    return paths.root() / "results" / label


def promote(run: Run) -> Path:
    """Copy a run's small results and executed notebooks into the project, with how they were made.

    Raises:
        FileNotFoundError: the run has not been executed.
    """
    source, target = run.directory / "results", directory(run.profile.label)
    if not (source / "headline.json").is_file():
        raise FileNotFoundError(f"{source} has no results yet: execute the notebook for these seeds first")
    target.mkdir(parents=True, exist_ok=True)
    for name in PROMOTED:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    for kind in ("notebooks", "figures"):  # those of an earlier run would stand beside this one's verdicts
        shutil.rmtree(target / kind, ignore_errors=True)
        (target / kind).mkdir()
    for notebook in (run.directory / "notebooks").glob("*.ipynb"):
        if notebook.suffixes == [".ipynb"]:  # a notebook that failed is kept as .partial.ipynb
            _without_traces(notebook, target / "notebooks" / notebook.name)
    for name in FIGURES:
        if (run.directory / "figures" / name).is_file():
            shutil.copy(run.directory / "figures" / name, target / "figures" / name)
    return target


def _without_traces(executed: Path, target: Path) -> None:
    """Copy a notebook without what tells of the machine: papermill's notes, and warnings, which pages do not show."""
    notebook = nbformat.read(executed, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        if "outputs" in part:
            part.outputs = [output for output in part.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, target)
