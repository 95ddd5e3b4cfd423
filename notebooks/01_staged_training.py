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
# # Staged training: what each stage gives and takes
#
# A policy is trained on one domain after another, and pays for each new skill with a part of the old ones. A very short
# refresh brings an old skill back. This chapter trains the whole story with TRL's GRPO and measures it: four *experts*
# (the base after one domain alone), the *sequence* of all domains, and the *refresh* of the domain that was hurt, next to
# controls that say what the refresh owes to being a refresh of that domain.
#
# It measures claim **C9** of the paper {cite}`yang2026local`: after Code → Math → QA → creative writing, a brief Re-Math
# refresh recovers Math and leaves the other domains largely as they were.

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, smollm, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
stages: str = ""  # order of the domains, separated by commas; empty: the profile's
refresh_steps: int = -1  # RL steps of the refresh; -1: the profile's
overrides: str = ""  # any other settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import evaluation, interference, plots, staging
from crossdomain.plots import staged_training as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import staged_training as say

plots.theme()
run = open_run(profile, seeds, overrides, stages=stages, refresh_steps=refresh_steps)
titles = run.titles()

# %% [markdown]
# ## Training
#
# All that follows is trained here, or read from the store if it has been trained before with the same settings, seed,
# versions and code.

# %% tags=["hide-input"]
for lineage in run.lineages:
    staging.train(lineage)
plan = staging.plan(run.lineages)

# %% [markdown]
# ## Learning curves
#
# The reward that GRPO {cite}`shao2024deepseekmath` maximises, averaged over the completions of a step. A prompt is answered
# several times, and a completion is reinforced by its advantage over the others of its group,
# $A_i = (r_i - \bar r) / \mathrm{sd}(r)$: a group of equal rewards teaches nothing. Each panel is a stage of the sequence,
# or an expert that starts from the base.

# %% tags=["hide-input"]
trained = {role: names for role, names in {**plan.sequence, **plan.experts}.items() if role != "base"}
logs = run.keep("training", interference.training_logs(run.lineages, trained))
display(
    plots.show(
        draw.learning_curves(logs, titles),
        "Learning curves: mean reward against RL steps, one panel for each stage and expert.",
        run.figure("learning_curves"),
    ),
    Markdown(say.learning(logs, titles)),
)

# %% [markdown]
# ## Every score on every domain
#
# Scores are in points (0 to 100) on prompts that were never trained on. *T = 1* samples from the policy itself: the
# quantity that reinforcement learning raises, computed exactly where one answer is right. *Greedy* takes the likeliest
# token. Intervals are 95 %: over seeds where there are several, over prompts where there is one. Base models differ in how
# much they know, so intervals of levels over few seeds are wide and can pass the ends of the scale; those of changes, which
# are paired, are what tells.

# %% tags=["hide-input"]
scores = run.keep("scores", evaluation.summary(run.lineages, plan.all()))
table = run.keep("scores_over_seeds", interference.over_seeds(scores))
shown = table[table["role"].isin([*plan.sequence, *list(plan.refreshes)[:1]])]
display(
    HTML(say.score_table(table, titles)),
    plots.show(
        draw.score_heatmap(shown, titles),
        "Heatmap of scores: a row for each stage of the sequence, a column for each domain, at T = 1 and greedy. "
        + say.score_summary(shown, titles),
        run.figure("scores"),
    ),
)

# %% [markdown]
# **The paper** gives these numbers for a model of 4 billion parameters. It reports one run, without intervals.

# %% tags=["hide-input"]
comparison = run.keep("against_the_paper", interference.against_the_paper(run.lineages, plan, scores))
display(HTML(say.comparison(comparison)), Markdown(say.agreement(comparison, table)))

# %% [markdown]
# ## The whole story along the steps
#
# Held-out scores of all domains at every snapshot of the sequence and of the refresh. Bands show what is being trained. The
# paper shows no such curves; its claim is that a domain falls while others are trained, and rises at once when refreshed.

# %% tags=["hide-input"]
curves = run.keep("sequence_curves", interference.sequence_curves(run.lineages))
display(
    plots.show(
        draw.sequence_story(curves, titles),
        "Held-out score of every domain along all RL steps of the sequence and the refresh. "
        + say.story(curves, titles),
        run.figure("story"),
    ),
    Markdown(say.story(curves, titles)),
)

# %% [markdown]
# ## What each stage gave and took
#
# An arrow from the score before a stage to the score after it, for every domain, at T = 1.

# %% tags=["hide-input"]
changes = run.keep("changes", interference.changes(run.lineages, staging.steps_of(plan)))
at_1 = changes[(changes["split"] == "test") & (changes["decoding"] == evaluation.TEMPERATURE_1)]
steps = [*staging.steps_of(plan)][: len(plan.sequence) - 1 + bool(plan.refreshes)]
display(
    plots.show(
        draw.gave_and_took(at_1[at_1["step"].isin(steps)], titles),
        "Arrows from the score before each stage to the score after it, for every domain.",
        run.figure("gave_and_took"),
    ),
    Markdown(say.gave_and_took(changes, run.profile, titles)),
)

# %% [markdown]
# ## The refresh, and what it owes to being one
#
# The damaged policy is refreshed for a few steps. Three kinds of control take as many steps:
#
# * a refresh of each *other* domain: does any training at all bring the score back?
# * *refresh without damage*: the refresh starts right after the domain's own stage. What it gains there is learning that
#   had not finished, and no recovery.
# * *Adam restart in first learning*: it starts at the point of first learning where the score (on the development split)
#   was that of the damaged policy. A fresh Adam takes the same steps from the same score, but nothing had been lost.

# %% tags=["hide-input"]
if plan.refreshes:
    domain = run.profile.refresh
    trajectories = run.keep("refresh_curves", interference.refresh_curves(run.lineages, plan))
    relearning = run.keep("relearning", interference.relearning(run.lineages))
    display(
        plots.show(
            draw.refresh_trajectories(trajectories, domain, titles),
            f"Score of {titles[domain]} along each refresh, and of every domain along the refresh of {titles[domain]}.",
            run.figure("refresh"),
        ),
        plots.show(
            draw.refresh_gains(at_1[at_1["step"].isin([*plan.refreshes, *plan.controls])], domain, titles),
            f"Change of {titles[domain]} under the refresh and under each control, a dot a seed.",
            run.figure("refresh_gains"),
        ),
        Markdown(say.refresh(changes, relearning, run.profile, titles)),
    )
else:
    display(
        Markdown("*No stage follows the refreshed domain's own in this run: there is nothing to recover from.*"),
        Markdown(say.lift(changes, titles)),
    )

# %% [markdown]
# ## What the policy answers
#
# The first held-out prompts of each domain, answered greedily by the base and by the last policy of the sequence.

# %% tags=["hide-input"]
HTML(say.answers(run.lineages[0], [run.lineages[0].sequence[0], run.lineages[0].sequence[-1]], titles))

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
headline = run.keep_values("headline", interference.headline(run, scores, changes))
Markdown(say.in_short(headline))

# %% tags=["hide-input"]
HTML(provenance_box(run, "01_staged_training.py"))
