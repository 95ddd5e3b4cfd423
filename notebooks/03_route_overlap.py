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
# # Shared routes: where domains meet, and in which direction they pull
#
# Edits of two domains may touch different neurons, and their gradients may be orthogonal as whole vectors, and one can
# still break what the other needs. The paper's answer {cite}`yang2026local` has three parts: full-model gradients are
# **nearly orthogonal although domains interfere** (claim **C3**), because domains **share active computation routes**
# (claim **C4**), on which the **direction of the updates** decides between synergy and conflict (claim **C5**).
#
# All three are measured here on the checkpoints of [chapter 1](01_staged_training). The chapter ends with the question
# that matters to a practitioner: does any of this predict which domain will hurt which?

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import chapters, pairs, pathways, plots, route_sets
from crossdomain.plots import pathways as draw
from crossdomain.plots import sparsity as draw_sets
from crossdomain.run import open_run, provenance_box
from crossdomain.words import pathways as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "03_route_overlap")
titles = run.titles()

# %% [markdown]
# ## Gradients are nearly orthogonal (C3)
#
# The gradient of the GRPO objective of every domain at the base model, from many training prompts. A gradient estimated
# from rollouts is noisy, and noise alone makes two vectors look orthogonal. So each is estimated in several parts: how
# well a domain's gradient agrees *with itself* (split half) is the ceiling for its agreement with another, and the noise
# can be taken out of the cosine. One-dimensional tensors (norms) are left out.

# %% tags=["hide-input"]
gradients = pathways.gradient_tables(run.lineages)
for name, table in gradients._asdict().items():
    run.keep(f"gradient_{name}", table)
display(
    plots.show(
        draw.gradient_cosines(gradients.pairs, titles),
        "Cosines of the gradients of all pairs of domains, raw and with noise taken out, and split-half cosines.",
        run.figure("gradient_cosines"),
    ),
    plots.show(
        draw.cosine_spectrum(gradients.modules, gradients.extremes, titles),
        "Cosines of all matrices in increasing order, a panel a pair of domains, with the band that noise alone gives.",
        run.figure("cosine_spectrum"),
    ),
    Markdown(say.gradients(gradients.pairs, gradients.extremes, titles)),
)

# %% [markdown]
# ## Domains share active routes (C4)
#
# The *route* of a domain is made of the MLP neurons and attention heads that write most to the residual stream while the
# model reads the domain's prompts and its own answers: the top 10 % by mean |activation| · ‖down column‖, and by the mean
# norm of a head's contribution. The figure shows the routes after the whole sequence; what all domains use is dark.

# %% tags=["hide-input"]
moments = {"in the base": ["base"] * len(run.lineages), "after the sequence": [x.sequence[-1] for x in run.lineages]}
overlaps = run.keep("route_overlap", pathways.route_overlaps(run.lineages, moments))
stability = run.keep("route_stability", pathways.route_stability(run.lineages, moments))
by_contribution = [t[t["score"] == "contribution"] for t in (overlaps, stability)]
main = [t[t["share"] == route_sets.ROUTE_SHARE] for t in by_contribution]
display(
    plots.show(
        draw.routes(route_sets.active_routes(run.lineages[0], run.lineages[0].sequence[-1]), titles),
        "Active neurons and heads of every domain, a row a layer.",
        run.figure("routes"),
    ),
    plots.show(
        draw_sets.overlap_heatmaps(*pathways.overlap_panels(*main), titles),
        "Heatmaps of the Jaccard index of routes for all pairs of domains, neurons in the base and after the sequence.",
        run.figure("route_overlap"),
    ),
    plots.show(
        draw.overlap_by_share(*by_contribution),
        "Overlap of routes against the share of active units, for neurons and heads, with chance and with a domain's "
        "overlap "
        "with itself.",
        run.figure("route_overlap_by_share"),
    ),
    Markdown(say.route_overlap(*main, route_sets.ROUTE_SHARE)),
    Markdown(say.other_scores(overlaps, stability, route_sets.ROUTE_SHARE)),
)

# %% [markdown]
# ## Direction decides (C5)
#
# Cosines of the domains' updates: of the experts, which all start at the base, and of the stages, which follow each
# other. On the *shared route* are the parameters of the units that both domains use (a neuron's rows and column, a head's
# queries and outputs, the keys and values it reads). The control draws random routes with as many neurons and heads in
# every layer.

# %% tags=["hide-input"]
directions = run.keep("update_directions", pathways.update_directions(run.lineages))
modules = run.keep("module_directions", pathways.module_directions(run.lineages))
display(
    plots.show(
        draw.route_directions(directions, titles),
        "Cosines of updates on the shared route, off it and everywhere for all pairs of domains, with random routes.",
        run.figure("route_directions"),
    ),
    plots.show(
        draw.conflict_maps(modules, titles),
        "Heatmaps of the cosine of two experts' updates, a row a layer, a column a module, a panel a pair of domains.",
        run.figure("conflict_maps"),
    ),
    Markdown(say.direction(directions, titles)),
)

# %% [markdown]
# ## Does any of it predict interference?
#
# For all ordered pairs of domains the expert of A is trained on B, and what that takes from A is measured. Candidate
# predictors are computed before: from the two experts, and from gradients and routes of the policy after A.

# %% tags=["hide-input"]
damage = run.keep("pair_damage", pairs.damages(run.lineages))
known = run.keep("pair_predictors", pairs.predictors(run.lineages))
table = damage.merge(known, on=["seed", "a", "b"])
correlations = run.keep("pair_correlations", pairs.rank_correlations(damage, known, list(pairs.PREDICTORS)))
display(
    plots.show(
        draw.damage_matrix(damage, titles),
        "Heatmap of the measured damage: a row the domain that is hurt, a column the domain trained after it.",
        run.figure("pair_damage"),
    ),
    Markdown(say.damages(damage, titles, run.profile.pair_steps)),
    plots.show(
        draw.predictions(table, pairs.PREDICTORS, titles),
        "Measured damage against each predictor, a dot a pair and seed.",
        run.figure("predictions"),
    ),
    plots.show(
        draw.rank_correlations(correlations, pairs.PREDICTORS),
        "Rank correlation of every predictor with the measured damage, with intervals.",
        run.figure("rank_correlations"),
    ),
    Markdown(say.prediction(correlations, pairs.PREDICTORS, pairs.CONTROL)),
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values(
    "route_overlap", say.verdicts(gradients.pairs, gradients.extremes, main, directions, correlations)
)
Markdown(say.in_short(verdicts, pairs.PREDICTORS))

# %% tags=["hide-input"]
HTML(provenance_box(run, "03_route_overlap.py"))
