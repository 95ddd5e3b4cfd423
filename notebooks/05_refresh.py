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
# # The refresh: how a few steps bring a domain back
#
# A short refresh of the hurt domain returns most of what later stages took; [chapter 1](01_staged_training) shows that.
# The paper explains it {cite}`yang2026local`: gradient steps on A **contract the harmful part** of the update, the part
# inside the conflict subspace (claim **C8**), and leave the rest, so that the other domains are **largely preserved**
# (claim **C9**). {prf:ref}`thm-contraction` and {prf:ref}`prop-collateral` say what holds and under which hypotheses. This
# chapter measures both on the checkpoints of chapter 1: first with plain gradient descent on the exact loss, which the
# theorem is about, then with the GRPO refreshes as they are trained, which it does not cover ({prf:ref}`rem-adam`,
# {prf:ref}`rem-noise`).
#
# The case is that of [chapter 4](04_damage_theory): $\theta_A$ is the policy after Math's own stage, $\delta$ all that the
# later stages changed, and $S$ is spanned by the leading eigenvectors of Math's Hessian at $\theta_A$: of all parameters,
# and of the shared route. $S$ is chosen on training prompts, which the descent uses, too; losses and scores are reported
# on test prompts.

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import chapters, measurements, plots, recovery, refresh_variants, selectivity
from crossdomain.plots import refresh as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import recovery as say_recovery
from crossdomain.words import refresh as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "05_refresh")
titles, domain = run.titles(), run.profile.refresh

# %% [markdown]
# (ch5-contraction)=
# ## Does gradient descent contract the harmful part? (C8)
#
# From $\theta_A+\delta$, steps $\theta_{t+1}=\theta_t-\alpha\,g_A(\theta_t)$ with $\alpha$ below and above the theorem's
# limit ({prf:ref}`ass-steps`). All step sizes are multiples of $1/\lambda_{\max}$, where $\lambda_{\max}$ is the largest
# eigenvalue of $H$ over *all* parameters at $\theta_A$, since all parameters take the step. On top the length of what is
# left inside $S$; below its signed component along $P\delta$, which tells what has come back from what has overshot. Two
# controls: a random subspace of the same dimension, and steps of the same lengths down the loss of another domain.

# %% tags=["hide-input"]
tables = measurements.stacked(run.lineages, recovery.refreshes)
for name, table in tables.items():
    run.keep(f"refresh_{name}", table)
display(
    plots.show(
        draw.contraction(tables["contraction"], domain, titles),
        "Length inside the conflict subspace and signed component along the update, against refresh steps, for four step "
        "sizes and two controls.",
        run.figure("refresh_contraction"),
    ),
    Markdown(say.contraction(tables["contraction"], tables["curvature"], domain, titles)),
)

# %% [markdown]
# (ch5-bound)=
# ## Against the bound of Theorem 1
#
# {prf:ref}`thm-contraction` bounds that length by
# $\gamma^t\|P\delta\|+\frac{1-\gamma^t}{1-\gamma}\,\alpha\,(\kappa\max\|Qe_s\|+\max\|Pr_s\|)$. All of it is measured: $\mu$
# and $L$ on $S$, the leakage $\kappa$, and the remainder $r_t=g_A(\theta_t)-H(\theta_t-\theta_A)$ along the path. The
# paper's bound ({prf:ref}`rem-paper-bound`) leaves out both $\kappa$ and $r$. A bound above the dotted line promises no
# more than that the harmful part will not grow. A larger $S$ holds more of the damage, but its $\mu$ is smaller
# ({prf:ref}`rem-slowest`), so several dimensions are shown. Values below $10^{-4}$ are drawn there.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.bounds(tables["contraction"], domain),
        "Measured length inside the conflict subspace against the bound of Theorem 1 and the paper's bound, for two "
        "subspaces in three dimensions, on a logarithmic scale.",
        run.figure("refresh_bounds"),
    ),
    Markdown(say.bounds(tables["contraction"], tables["constants"], domain)),
)

# %% [markdown]
# (ch5-loss)=
# ## What that does to the loss
#
# A distance is not a loss: where $\theta_A$ was not stationary, a refresh can go past it and improve on it
# ({prf:ref}`rem-floor`). So the same descents again, by the loss on test prompts, and all domains by their scores.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.descents(tables["descent"], tables["domains"], domain, titles),
        "Test loss of the refreshed domain along the descents, and the change of every domain's score at one step size.",
        run.figure("refresh_losses"),
    ),
    Markdown(say.losses(tables["descent"], tables["domains"], domain, titles)),
)

# %% [markdown]
# (ch5-grpo)=
# ## The refresh as trained
#
# The same distances along GRPO refreshes, over learning rates and batch sizes; one of them is the refresh of chapter 1.

# %% tags=["hide-input"]
cost = run.keep("refresh_budget", refresh_variants.budget(run.lineages))
display(
    plots.show(
        draw.grpo(tables["grpo"]),
        "Distance from the checkpoint before the damage inside two conflict subspaces and outside, along GRPO refreshes "
        "of several learning rates and batch sizes.",
        run.figure("refresh_grpo"),
    ),
    Markdown(say.grpo(tables["grpo"], cost)),
)

# %% [markdown]
# (ch5-selectivity)=
# ## Is it selective? (C9)
#
# One refresh of each domain, from the same damaged policy: a row is what is refreshed, a column what changes. If a refresh
# brings back its own domain and no other, only the diagonal is large, where there was something to bring back.

# %% tags=["hide-input"]
matrix = run.keep("recovery_matrix", selectivity.recovery_matrix(run.lineages))
over_seeds = run.keep("recovery_matrix_over_seeds", selectivity.matrix_over_seeds(matrix))
beyond = run.keep("refresh_selectivity", selectivity.selectivity(matrix))
display(
    plots.show(
        draw.recovery_matrix(over_seeds, titles),
        "Heatmap: change of every domain's score under a refresh of every domain, in points.",
        run.figure("recovery_matrix"),
    ),
    Markdown(say_recovery.selectivity(matrix, beyond, titles)),
)

# %% [markdown]
# (ch5-budget)=
# ## What does it cost?
#
# Points against completions for all refreshes, and against what the other domains lose; and how much longer first learning
# took for the same points.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.budget(cost),
        "Points gained against completions, and against the mean change of the other domains, for GRPO refreshes of "
        "several learning rates and batch sizes.",
        run.figure("refresh_budget"),
    ),
    Markdown(say_recovery.budget(cost, titles[domain])),
)

# %% [markdown]
# (ch5-collateral)=
# ## What does it do to the others?
#
# {prf:ref}`prop-collateral` bounds the harm to another domain by its gradient and its largest curvature *where the refresh
# starts*. The constant $\rho_C$ is measured along the way itself, which makes it a lower bound of the one that the
# proposition asks for. Beside the bound, the second-order expansion for the displacement that the refresh took, and a
# random displacement with the same norm in every tensor.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.collateral(tables["collateral"], titles),
        "Rise of the other domains' losses under refreshes: actual and predicted, and what Proposition 3 allows.",
        run.figure("refresh_collateral"),
    ),
    Markdown(say_recovery.collateral(tables["collateral"], titles)),
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values(
    "refresh", say_recovery.verdicts(tables["contraction"], tables["grpo"], beyond, cost, tables["collateral"], domain)
)
Markdown(say_recovery.in_short(verdicts, titles))

# %% tags=["hide-input"]
HTML(provenance_box(run, "05_refresh.py"))
