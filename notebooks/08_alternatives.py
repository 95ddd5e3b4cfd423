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
# # What else could one do? Alternatives and orders
#
# The paper's recipe is a sequence of single-domain stages with a short refresh at its end {cite}`yang2026local`. It is
# compared with nothing else there. This chapter asks what the same number of RL steps gives if they are spent otherwise:
# on all domains at once, on a sequence that protects what it has, or on experts that are merged; and whether the *order*
# of the domains matters, and can be foreseen.
#
# **Accounting.** Every method has two versions: with the RL steps of the whole sequence, and with those of a refresh
# besides. The second is a refresh of the refreshed domain after whatever the method made; for mixed training it is more of
# the mixture; for one control, more of the last domain. Methods that change the later stages (replay, KL, EWC, projected
# gradients) start from the same checkpoint as the sequence's later stages, with the same prompts, steps and rates. All
# scores are expected rewards at temperature 1 on test prompts.

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import alternatives, chapters, measurements, orders, plots
from crossdomain.plots import alternatives as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import alternatives as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "08_alternatives")
titles = run.titles()
refresh = titles[run.profile.refresh]
methods = alternatives.methods(run.profile)
names = {key: method.title for key, method in methods.items()}

# %% [markdown]
# (ch8-methods)=
# ## The methods, and what each needs
#
# * **Mixed**: from the base, every step has prompts of all domains, in the shares their stages have of the sequence.
# * **Replay**: a share of every later step's prompts is of earlier domains.
# * **KL**: GRPO's own penalty, the divergence from the policy at the start of the stage.
# * **EWC** {cite}`kirkpatrick2017overcoming`: a pull back to the policy after each earlier domain, coordinate by
#   coordinate as strong as the diagonal of that domain's Fisher matrix. Every direction it knows is a coordinate, and
#   [chapter 4](ch4-modules) shows how much of the curvature lies between coordinates.
# * **Projected gradients**: the nearest gradient that raises no earlier domain's loss to first order
#   ([GEM](https://arxiv.org/abs/1706.08840), by [TorchJD](https://arxiv.org/abs/2406.16232)). Damage that is mainly second
#   order ([C6](ch4-path)) is just what such a condition does not see. Adam comes after the projection: the guarantee is of
#   the gradient, not of the step.
# * **Merging** the experts, each trained from the base: the sum of their updates ([task
#   arithmetic](https://arxiv.org/abs/2212.04089)), the largest entries with an agreed sign
#   ([TIES](https://arxiv.org/abs/2306.01708)), or random entries scaled up ([DARE](https://arxiv.org/abs/2311.03099)),
#   times a scale.
# * **Rollback**: the later updates taken back on the coordinates of [chapter 6](06_rollback).
#
# Strengths of KL and EWC are settings of the profile. The scale of a merge and the size of a rollback are chosen seed by
# seed on development prompts of all domains.

# %% tags=["hide-input"]
Markdown(say.needs(methods))

# %% [markdown]
# (ch8-compared)=
# ## At equal steps

# %% tags=["hide-input"]
tables = measurements.stacked(run.lineages, alternatives.study)
scores = run.keep("alternatives_scores", tables["scores"])
choices = run.keep("alternatives_choices", tables["choices"])
table = run.keep("alternatives", alternatives.summary(scores, tables["costs"]))
display(
    plots.show(
        draw.methods(table, names),
        "Average and lowest score of every method, with the sequence's steps and with a refresh's besides.",
        run.figure("alternatives"),
    ),
    Markdown(say.compared(table, methods, refresh)),
    Markdown(say.choices(choices, methods)),
)

# %% [markdown]
# An average hides who pays. The dotted lines are the sequence with its refresh.

# %% tags=["hide-input"]
plots.show(
    draw.domains(scores, names, titles),
    "Score of every domain under every method in its longer version, with lines at the sequence's own.",
    run.figure("alternatives_domains"),
)

# %% [markdown]
# (ch8-costs)=
# ## What it costs
#
# Steps are equal, seconds are not: a step with replay answers longer, EWC computes Fisher matrices before a stage,
# projection takes a gradient of every earlier domain at every step.

# %% tags=["hide-input"]
display(
    plots.show(
        draw.costs(table, names),
        "Average score against seconds on one core for every method in both versions.",
        run.figure("alternatives_costs"),
    ),
    Markdown(say.costs(table, methods)),
)

# %% [markdown]
# (ch8-orders)=
# ## Does the order matter?
#
# All orders of the domains, with the same steps for each domain; orders that begin alike share their stages. At the end
# each is refreshed on the profile's domain. [Chapter 4](ch4-prediction) predicts the damage of every ordered pair from the
# experts alone; an order's prediction is the sum over its pairs, set against what the domains lose on average between the
# end of their own stage and the end of the sequence.

# %% tags=["hide-input"]
asked = orders.asked(run.lineages)
ordered = ranking = None
if asked:
    order_scores = run.keep("orders_scores", measurements.stacked(asked, orders.study)["scores"])
    ordered = run.keep("orders", orders.summary(order_scores))
    foreseen = measurements.stacked(asked, orders.prediction)
    ranking = run.keep("orders_ranking", foreseen["ranking"])
    sums = run.keep("orders_predicted", foreseen["sums"])
    display(
        plots.show(
            draw.orders(ordered, titles),
            "Average score after every order of the domains, with and without the refresh.",
            run.figure("orders"),
        ),
        plots.show(
            draw.lost_by_place(order_scores, titles),
            "Points a domain has lost at the end against how many stages came after its own, for every order.",
            run.figure("orders_lost"),
        ),
        Markdown(say.orders(ordered, order_scores, titles, refresh)),
        plots.show(
            draw.predicted_orders(sums),
            "What every order loses against the sum of pair damages predicted from the experts alone.",
            run.figure("orders_predicted"),
        ),
        Markdown(say.prediction(ranking)),
    )
else:
    display(Markdown(say.not_asked(run.profile.orders_seeds, run.seeds)))

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values("alternatives", say.verdicts(table, methods, ordered, ranking))
Markdown(say.in_short(verdicts, titles, refresh))

# %% tags=["hide-input"]
HTML(provenance_box(run, "08_alternatives.py"))
