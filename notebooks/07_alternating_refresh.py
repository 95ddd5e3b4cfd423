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
# # Alternating refresh: all domains in turn
#
# A refresh of one domain repairs that domain. With several domains damaged, one can refresh them *in turn*. The paper is
# reported to say that one cycle of such an **alternating refresh** over a pair approximates a descent step on the weighted
# two-domain objective, towards a local Pareto-stationary compromise (claim **C11** {cite}`yang2026local`).
# {prf:ref}`prop-alternating` says how closely: the two differ by $\alpha^2H_Bg_A$ up to third order in the step $\alpha$.
#
# This chapter checks the proposition at the damaged policy of [chapter 1](01_staged_training), with gradient descent and
# exact derivatives. Then it does in RL what a reader would want to know: at the same number of steps, is an alternating
# refresh of all domains better than the plain refresh of one?

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import alternating_refresh, chapters, measurements, plots
from crossdomain.plots import alternating as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import alternating as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "07_alternating_refresh")
titles = run.titles()

# %% [markdown]
# (ch7-cycle)=
# ## One cycle against one joint step (C11)
#
# A *cycle* takes a gradient step $\alpha$ on A, then one on B where the first has led; the *joint step* takes $\alpha$ on
# $L_A+L_B$. A is the refreshed domain, B each of the others. Where one answer is right the loss is minus its probability;
# elsewhere it is the reward of fixed rollouts, reweighted. Both are on training prompts, and all is in float64, since the
# smallest deviations are beyond float32. Steps are in units of $1/(\lambda_A+\lambda_B)$, $\lambda$ the top eigenvalue of
# a loss's Hessian; the order is read from steps up to a tenth of that.
#
# By {prf:ref}`prop-alternating` the distance should be of order 2 in $\alpha$, and of order 3 once $\alpha^2H_Bg_A$ is
# added; for the mean of both orders the term is $\tfrac{\alpha^2}2\nabla\langle g_A,g_B\rangle$. Controls: the term that
# belongs to the *other* order should leave order 2, and two steps on A alone should differ from the joint step at order 1.
# The same orders hold for the two losses; but a loss's deviation has a sign, and where it passes through zero its slope
# means little.

# %% tags=["hide-input"]
cycles = measurements.stacked(run.lineages, alternating_refresh.cycles)
for name, table in cycles.items():
    run.keep(f"alternating_{name}", table)
display(
    plots.show(
        draw.deviations(cycles["deviations"], cycles["orders"], titles),
        "Left: distance of the end of a cycle from the joint step, corrected and not, against the step. Right: order of "
        "the deviations in the step, for all pairs and seeds.",
        run.figure("alternating_deviations"),
    ),
    Markdown(say.approximation(cycles["deviations"], cycles["orders"], cycles["objectives"], titles)),
)

# %% [markdown]
# (ch7-cycles)=
# ## Many cycles: towards a compromise?
#
# The main pair again, cycle after cycle at $\alpha=1/(\lambda_A+\lambda_B)$, against as many joint steps. By
# {prf:ref}`cor-descent` cycles lower the sum of the losses up to a neighbourhood of a stationary point, and such a point is
# Pareto-stationary ({prf:ref}`rem-pareto`): some convex combination $\gamma g_A+(1-\gamma)g_B$ is zero. The shortest one
# {cite}`desideri2012mgda` says how far from that a policy is. Controls: two steps a cycle on one of the losses alone.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.descents(cycles["descents"], titles),
        "Both domains' expected reward on test prompts, norms of the gradients, their cosine and the distance from the "
        "joint steps, along cycles in both orders, joint steps and steps on one loss alone.",
        run.figure("alternating_descents"),
    ),
    Markdown(say.compromise(cycles["descents"], titles)),
)

# %% [markdown]
# (ch7-refreshes)=
# ## In RL: all domains in one refresh
#
# Every refresh below is GRPO from the same damaged policy and takes as many RL steps, with as many completions a step. On
# all domains: *alternating* trains one domain a step, each in its turn; *one after another* spends each domain's share of
# the steps at once; *mixed batches* hold prompts of all domains, the same number of each. These have one Adam, one warm-up
# and one learning rate, that of the refreshed domain, whatever rate the others were trained at; in a mixed batch GRPO
# divides its loss by all tokens, so domains with long responses weigh more. On one domain: the plain refresh, and as
# its controls those of the other domains, each at its own rate.

# %% tags=["hide-input"]
changes = run.keep("alternating_changes", alternating_refresh.changes(run.lineages))
plain = f"refresh {titles[run.profile.refresh]}"
totals = run.keep("alternating_totals", alternating_refresh.totals(changes, plain))
display(
    plots.show(
        draw.refreshes(changes, totals, titles),
        "Left: change of every domain's score by each refresh. Right: average and worst score over the domains after it.",
        run.figure("alternating_refreshes"),
    ),
    Markdown(say.refreshes(changes, totals, plain, titles)),
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values(
    "alternating_refresh", say.verdicts(cycles["deviations"], cycles["orders"], cycles["descents"], totals, plain)
)
Markdown(say.in_short(verdicts, titles))

# %% tags=["hide-input"]
HTML(provenance_box(run, "07_alternating_refresh.py"))
