# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Damage: second order, and in few directions
#
# The paper explains interference by a local expansion {cite}`yang2026local`: the damage of a later domain to an earlier
# one is **mainly second order** (claim **C6**) and **concentrates in a low-dimensional shared conflict subspace** (claim
# **C7**). The [theory chapter](../book/theory) states and proves what these claims need. This chapter measures the
# expansion, the subspace and the assumptions on the checkpoints of [chapter 1](01_staged_training), with exact
# derivatives. The theory's later statements are measured after it: the [refresh](05_refresh), the
# [rollback](06_rollback) and the [alternating refresh](07_alternating_refresh).
#
# The main case is the paper's: $\theta_A$ is the policy after its Math stage, $\delta$ is all that the later stages
# changed, and $L_A$ is Math's loss there. Directions are chosen on training prompts and reported on test prompts.

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import chapters, concentration, measurements, pairs, plots, predictions, second_order
from crossdomain.plots import pathways as draw_predictors
from crossdomain.plots import second_order as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import second_order as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "04_damage_theory")
titles = run.titles()

# %% [markdown]
# (ch4-path)=
# ## Along the update (C6)
#
# The actual damage of moving from $\theta_A$ to $\theta_A + t\delta$, and what its first and second order predict
# ({prf:ref}`prop-damage`). The *exact reward* is the probability of the right answer, so its damage is expected reward
# lost. The *KL divergence* from $\theta_A$ has no first order by construction ({prf:ref}`lem-kl`).

# %% tags=["hide-input"]
path = measurements.stacked(run.lineages, second_order.path)
for name, table in path.items():
    run.keep(f"damage_{name}", table)
display(
    plots.show(
        draw.damage_path(path["path"]),
        "Actual damage along the update with its first order, second order and their sum, for two objectives.",
        run.figure("damage_path"),
    ),
    plots.show(
        draw.controls(path["controls"]),
        "First order, second order and actual damage of the later stages and of the controls.",
        run.figure("damage_controls"),
    ),
    Markdown(say.expansion(path["path"], path["controls"], titles[run.profile.refresh])),
)

# %% [markdown]
# (ch4-modules)=
# ## Which modules
#
# $\tfrac12\delta^\top H\delta$ taken apart: entry $(i, j)$ is $\tfrac12\delta_i^\top H\delta_j$ for the parts of the
# update in modules $i$ and $j$, over all layers; the entries sum to the whole.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.cross_terms(path["cross"]),
        "Heatmap of the second-order term by pairs of modules, in percent of the whole.",
        run.figure("damage_modules"),
    ),
    Markdown(say.modules(path["cross"])),
)

# %% [markdown]
# (ch4-concentration)=
# ## How low is low-dimensional? (C7)
#
# The conflict subspace $S$ is spanned by the leading eigenvectors of the Hessian restricted to the *shared route*, the
# parameters of the units that Math and a later domain both use ({prf:ref}`def-subspace`). Next to it: its MLP and
# attention parts, the leading eigenvectors over *all* parameters, random subspaces, and single coordinates by two
# scores.

# %% tags=["hide-input"]
directions = measurements.stacked(run.lineages, concentration.concentration)
for name, table in directions.items():
    run.keep(f"concentration_{name}", table)
display(
    plots.show(
        draw.captured(directions["captured"]),
        "Share of the update's norm, of the quadratic form and of the actual damage that the first k directions hold.",
        run.figure("captured"),
    ),
    Markdown(say.concentration(directions["captured"], directions["summary"])),
)

# %% [markdown]
# (ch4-assumptions)=
# ## Do the assumptions hold?
#
# A nearly stationary checkpoint ({prf:ref}`ass-stationary`): the same update, expanded at checkpoints of Math's own
# stage and after training it further. A Hessian that stays ({prf:ref}`ass-smooth`). Little leakage
# ({prf:ref}`def-constants`). And: at which length of the later update does the quadratic model stop ranking damages
# rightly?

# %% tags=["hide-input"]
points = run.keep(
    "stationarity", measurements.stacked(run.lineages, lambda x: {"table": second_order.stationarity(x)})["table"]
)
predicted = measurements.stacked(run.lineages, predictions.predictions)
lengths = run.keep("ranking_by_length", predictions.ranking_by_length(predicted["lengths"]))
display(
    plots.show(
        draw.stationarity(points),
        "First order, second order and actual damage of the same update at checkpoints of A's own training, and the "
        "norm of the gradient there.",
        run.figure("stationarity"),
    ),
    plots.show(
        draw.ranking_by_length(lengths),
        "Rank correlation and relative error of the quadratic model against the length of the update.",
        run.figure("ranking_by_length"),
    ),
    Markdown(say.assumptions(points, path["drift"], directions["summary"], lengths)),
)

# %% [markdown]
# (ch4-prediction)=
# ## Who will hurt whom?
#
# For all ordered pairs of domains the damage of training B after A is predicted at A's expert from B's expert alone,
# before B is ever trained after A, on training prompts; it is then measured on test prompts, as in [chapter
# 3](03_route_overlap).

# %% tags=["hide-input"]
damage = pairs.damages(run.lineages)
known = pairs.predictors(run.lineages).merge(run.keep("pair_predictions", predicted["pairs"]), on=["seed", "a", "b"])
predictors = {**predictions.PREDICTORS, **pairs.PREDICTORS}
correlations = run.keep("damage_correlations", pairs.rank_correlations(damage, known, list(predictors)))
display(
    plots.show(
        draw.predicted_and_measured(damage.merge(known, on=["seed", "a", "b"]), titles),
        "Predicted against measured damage of all ordered pairs of domains.",
        run.figure("predicted_and_measured"),
    ),
    plots.show(
        draw_predictors.rank_correlations(correlations, predictors),
        "Rank correlation of the expansion and of chapter 3's predictors with the measured damage.",
        run.figure("damage_correlations"),
    ),
    Markdown(say.prediction(correlations, predictors, predictions.PREDICTORS)),
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values(
    "damage_theory", say.verdicts(path["path"], directions["captured"], directions["summary"], correlations)
)
Markdown(say.in_short(verdicts))

# %% tags=["hide-input"]
HTML(provenance_box(run, "04_damage_theory.py"))
