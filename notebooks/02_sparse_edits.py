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
# # Sparse edits: what reinforcement learning changes
#
# The paper begins with two observations about single-domain reinforcement learning {cite}`yang2026local`: its edits are
# **sparse and small** (claim **C1**), and the neurons that different domains change most **hardly overlap** (claim
# **C2**). Interference is then a puzzle: how can edits hurt each other that barely meet?
#
# This chapter measures both on the checkpoints of [chapter 1](01_staged_training), next to what chance gives and what
# the same domain gives under another seed. It then asks a question that the paper leaves open: is the sparsity due to
# reinforcement learning, or to the 8 bits of precision that bfloat16 has?

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
from IPython.display import HTML, Markdown, display

from crossdomain import chapters, plots, sparsity
from crossdomain.plots import sparsity as draw
from crossdomain.run import open_run, provenance_box
from crossdomain.words import sparsity as say

plots.theme()
run = open_run(profile, seeds, overrides)
chapters.check(run.profile, "02_sparse_edits")
titles = run.titles()
edits = sparsity.all_edits(run.lineages)
experts = {name: table[table["role"].str.endswith("expert")] for name, table in edits.items()}

# %% [markdown]
# ## How small, how sparse (C1)
#
# An *edit* is the difference of two checkpoints, here an expert minus the base, in every weight. A weight counts as
# unchanged if it moved by at most a threshold, absolutely or in relation to its size; the paper's own criterion is both,
# 1e-7 absolutely and 1e-3 relatively. Both checkpoints are subtracted in float32, the type this run is trained in.

# %% tags=["hide-input"]
shares = run.keep("unchanged", sparsity.unchanged(edits["shares"]))
norms = run.keep("edit_norms", sparsity.relative_norms(edits["tensors"]))
expert_shares, expert_norms = (t[t["role"].str.endswith("expert")] for t in (shares, norms))
display(
    plots.show(
        draw.unchanged_shares(expert_shares, titles),
        "Share of weights that change by at most a threshold, absolutely and relatively, a line an expert; a grey band "
        "marks what the paper reports.",
        run.figure("unchanged"),
    ),
    Markdown(say.sparse(expert_shares, expert_norms)),
)

# %% [markdown]
# ## Where the edits are
#
# The norm of the edit over that of the weights, matrix by matrix.

# %% tags=["hide-input"]
run.keep("edits_by_tensor", edits["tensors"])
display(
    plots.show(
        draw.edit_map(experts["tensors"], titles),
        "Heatmap of relative edit norms, a row a layer, a column a module, a panel a domain.",
        run.figure("edit_map"),
    ),
    plots.show(
        draw.effective_ranks(experts["tensors"], titles),
        "Effective rank of every matrix's edit by module and domain.",
        run.figure("effective_ranks"),
    ),
    Markdown(say.ranks(experts["tensors"], titles)),
)

# %% [markdown]
# ## Which neurons (C2)
#
# A *neuron* is one channel of an MLP: a row of its gate and up projections and a column of its down projection. Its edit
# magnitude is the L2 norm of the change over the three. The top-changed neurons of a domain are the 10 % with the
# largest magnitude over all layers, or of each layer. Two random sets of that size overlap, too (in brackets in the
# figure); sets can also agree just because both prefer the same layers, so a second chance value keeps each set's
# numbers per layer.

# %% tags=["hide-input"]
roles = list(dict.fromkeys(experts["neurons"]["role"]))
names = dict(zip(roles, (role.removesuffix(" expert") for role in roles), strict=True))
overlaps = run.keep("neuron_overlap", sparsity.neuron_overlaps(edits["neurons"], roles))
stability = run.keep("neuron_stability", sparsity.neuron_stability(run.lineages, edits["neurons"], roles))
display(
    plots.show(
        draw.overlap_heatmaps(*sparsity.overlap_panels(overlaps, stability), names),
        "Heatmaps of the Jaccard index of top-changed neurons for all pairs of domains, globally and within layers, with "
        "chance in brackets.",
        run.figure("neuron_overlap"),
    ),
    plots.show(
        draw.layer_profiles(sparsity.layer_profile(experts["neurons"]), titles, sparsity.TOP_SHARE),
        "Share of every layer's neurons that are top-changed, a line a domain.",
        run.figure("layer_profile"),
    ),
    Markdown(say.neuron_overlap(overlaps, stability)),
)

# %% [markdown]
# ## Reinforcement learning, or rounding? The precision experiment
#
# Language models are usually trained and stored in bfloat16, whose neighbouring numbers lie 0.4 to 0.8 % apart, with
# learning rates around 1e-6. An Adam step moves a weight by about the learning rate, whatever the gradient's size: in
# bfloat16 most such steps round to nothing. So the same stage is trained at several learning rates with
#
# * **float32** weights;
# * **float32 weights, stored as bfloat16**: trained as before, but both checkpoints are rounded before they are compared;
# * **bfloat16** weights: every step of the optimizer is rounded.

# %% tags=["hide-input"]
precision = run.keep("precision", sparsity.precision(run.lineages))
display(
    plots.show(
        draw.precision(precision, titles[run.profile.refresh]),
        "Unchanged share, relative norm of the edit and points gained against the learning rate, for float32 weights, "
        "float32 weights stored as bfloat16, and bfloat16 weights.",
        run.figure("precision"),
    ),
    Markdown(say.precision(precision, run.lineages[0])),
)

# %% [markdown]
# ## In short

# %% tags=["hide-input"]
verdicts = run.keep_values("sparse_edits", say.verdicts(expert_shares, expert_norms, overlaps, stability, precision))
Markdown(say.in_short(verdicts))

# %% tags=["hide-input"]
HTML(provenance_box(run, "02_sparse_edits.py"))
