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
# # Rollback: repairing without training
#
# If the damage of a later domain lies on few coordinates, one can take the later update back *there* and keep the rest.
# The paper reports that a **training-free rollback** on a sparse proxy set of conflict coordinates partially restores
# Math (claim **C10** {cite}`yang2026local`). How its set is built is not public. Ours follows
# {prf:ref}`prop-rollback`: from $\theta_A+\delta$ to $\theta_A+\delta-\lambda\delta_I$, where the set $I$ holds the
# coordinates with the highest score $\tfrac12F_{ii}\delta_i^2$, $F$ the Fisher matrix of A.
#
# Two cases of one domain A, the refreshed one, with $\theta_A$ the policy after its own stage: $\delta$ is the next stage
# alone (the paper's pair, Math and QA), and $\delta$ is all later stages. [Further down](ch6-pairs) are all ordered pairs.
# Coordinates are chosen on training prompts; everything is measured on test prompts.

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import chapters, frontier, measurements, plots, rollback_effects, rollback_sets
from crossdomain.plots import rollback as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import rollback as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "06_rollback")
titles = run.titles()

# %% [markdown]
# (ch6-needs)=
# ## What each score needs
#
# A score is only useful if one has what it is made of. *Every* rollback needs the checkpoint before the later stages, since
# it takes $\delta$ back. In the two cases below that checkpoint is $\theta_A$ itself; where other stages lie between (some
# of the pairs), it is not, and only the Fisher matrix of the damaged policy does without $\theta_A$. No right answers are
# needed by any score but the reference.

# %% tags=["hide-input"]
Markdown(say.NEEDS)

# %% [markdown]
# (ch6-regained)=
# ## How much comes back, and at what cost (C10)
#
# *Magnitude* takes the largest $|\delta_i|$; *random* as many coordinates, and *random, same norm* as many as it needs to
# hold as much of $\|\delta\|$ as the Fisher's set does. The two *greedy* references look at curvature between coordinates
# too: they add coordinates by what these give back in the quadratic model, at most half as many at a time as are chosen
# already, with an exact Hessian–vector product after each addition. The *divergence* has a Hessian without negative
# eigenvalues, the Fisher matrix itself; that of the *reward* has some, along which its quadratic model falls without end
# (its points are left out of these figures; they are [among the predictions](ch6-prediction)).
# All of $\delta$ on $I$ is taken back here ($\lambda=1$).

# %% tags=["hide-input"]
tables = measurements.stacked(run.lineages, rollback_effects.full)
for name, table in tables.items():
    run.keep(f"rollback_{name}", table)
front = run.keep("rollback_frontier", frontier.frontier(tables["measured"], run.profile.refresh))
damages = run.keep("rollback_damages", frontier.damages(tables["levels"], run.profile.refresh))
cases = say.case_titles(tables["levels"], titles)
main_scores = (*rollback_sets.LEADING, rollback_sets.MATCHED)
display(
    plots.show(
        draw.by_size(front, damages, main_scores, cases),
        "What A regains and what the others lose, against the share of the parameters that is taken back, by score.",
        run.figure("rollback_by_size"),
    ),
    plots.show(
        draw.frontier(front, damages, main_scores, cases),
        "What A regains against what the others lose: a line a score through all sizes, with the Pareto front marked.",
        run.figure("rollback_frontier"),
    ),
    Markdown(say.restored(front, damages, run.profile.rollback_points, cases)),
)

# %% [markdown]
# (ch6-budget)=
# ## One number: regained for a point
#
# A large rollback gives A everything back by undoing the later stages, so what comes back means little without what it
# costs.

# %% tags=["hide-input"]
within = run.keep("rollback_within", frontier.within(front))
Markdown(say.budgeted(within, cases))

# %% [markdown]
# (ch6-filters)=
# ## Do the filters help?
#
# The theory's set holds only coordinates where $\delta_i$ opposes A's own update, on the route that A shares with the later
# domains. Each filter alone, both together, and the set kept to the attention's or the MLP's parameters:

# %% tags=["hide-input"]
display(
    plots.show(
        draw.by_size(front, damages, (rollback_sets.FISHER, *rollback_sets.FILTERS), cases),
        "What A regains and what the others lose with the Fisher's score and each of its filters.",
        run.figure("rollback_filters"),
    ),
    Markdown(say.filters(front, run.profile.rollback_points, cases)),
)

# %% [markdown]
# (ch6-share)=
# ## Taking back less, or more
#
# For the paper's pair, shares $\lambda$ of $\delta_I$ from nothing on.

# %% tags=["hide-input"]
varied = frontier.varied(front)
display(
    plots.show(
        draw.by_share(varied, rollback_sets.LEADING),
        "What A regains and the others lose against the share of the update that is taken back.",
        run.figure("rollback_share"),
    ),
    Markdown(say.shares(varied)),
)

# %% [markdown]
# (ch6-prediction)=
# ## Is it predicted?
#
# {prf:ref}`prop-rollback` gives the change of the predicted damage for any set, with the exact Hessian at $\theta_A$ or
# with the diagonal Fisher in its place; the actual change is that of the loss on the same prompts.

# %% tags=["hide-input"]
agreement = run.keep("rollback_agreement", frontier.agreement(tables["predicted"]))
display(
    plots.show(
        draw.predicted(tables["predicted"]),
        "Predicted against actual change of A's loss, with the Hessian and by the diagonal Fisher.",
        run.figure("rollback_predicted"),
    ),
    Markdown(say.prediction(agreement, cases)),
    Markdown(say.greedy(tables["predicted"], max(run.profile.rollback_points), cases)),
)

# %% [markdown]
# (ch6-pairs)=
# ## All pairs of the sequence
#
# A is any domain of the sequence and $\delta$ the stage of any domain B after it.

# %% tags=["hide-input"]
pairs = run.keep("rollback_pairs", measurements.stacked(run.lineages, rollback_effects.pairs)["pairs"])
display(
    plots.show(
        draw.pairs(pairs, max(run.profile.rollback_points), titles),
        "Damage and gain of every ordered pair, with what a rollback regains and costs by score.",
        run.figure("rollback_pairs"),
    ),
    Markdown(say.pairs(pairs, titles)),
)

# %% [markdown]
# (ch6-policies)=
# ## The repaired policies, scored
#
# All domains, at temperature 1 and greedy, before and after the later stages and with parts of them taken back.

# %% tags=["hide-input"]
display(
    *(HTML(f"<h3>{title}</h3>" + say.policy_table(tables["policies"], case, titles)) for case, title in cases.items())
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values(
    "rollback", say.verdicts(front, damages, within, agreement, max(run.profile.rollback_points))
)
Markdown(say.in_short(verdicts, cases))

# %% tags=["hide-input"]
HTML(provenance_box(run, "06_rollback.py"))
