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
# # Diagnose your own model
#
# You trained a model on something new and it lost something else. `crossdomain diagnose` compares the two checkpoints and
# says what was edited, how much damage the update predicts and does, where it sits, and what could be taken back;
# `crossdomain rollback` takes it back, without training. Both need two directories that `transformers` can load and a
# file of prompts for each skill; labels are not needed.
#
# | you give | what it is |
# |---|---|
# | `--before DIR` | the checkpoint whose skill was good |
# | `--after DIR` | the one that was trained on and lost it |
# | `--base DIR` | optional: what `before` was trained from, to compare the two trainings |
# | `--prompts a.jsonl` | the skill to bring back: a `prompt` a line, a text or a list of chat messages |
# | `--prompts b.jsonl` | what the later training taught and is to stay (more files may follow) |
#
# Models of the families Qwen3, Llama (with SmolLM2), Gemma 3 (text) and GPT-2 work, on a CPU. Here both commands run on two
# checkpoints of [chapter 1](01_staged_training).

# %% tags=["parameters"]
profile: str = "cpu"  # scale of the run: smoke, cpu, smollm, or a profile file of your own
seeds: str = "0"  # RL seeds, separated by blanks; the first is diagnosed
overrides: str = ""  # settings of the profile, separated by blanks, as in the command line

# %% tags=["hide-input"]
import json
import shutil

from IPython.display import HTML, Markdown, display

from crossdomain import diagnose_example, diagnosis_report, paths
from crossdomain.diagnosis import Diagnosis
from crossdomain.run import open_run, provenance_box
from crossdomain.words import diagnosis as say

run = open_run(profile, seeds, overrides)
lineage = run.lineages[0]
example = diagnose_example.example(lineage, run.directory / "prompts")
pair = diagnose_example.pair(lineage, example)
display(Markdown(f"```\n{example.command('diagnose')}\n```"), Markdown(say.needs(pair)))

# %% [markdown]
# (ch9-diagnosis)=
# ## The diagnosis
#
# Damage is how far the answers of `after` diverge from those of `before`: $L = \mathrm{KL}(\pi_\text{before} \Vert
# \pi_\theta)$ on before's own answers. Its gradient is 0 at `before` and its Hessian there is the Fisher matrix $F$, so
# that ${1 \over 2}\delta^\top F\delta$ predicts it ({prf:ref}`prop-damage`). If the two agree, the update is short enough
# for all that follows; if they do not, read it as a ranking. For a domain that `after` was trained on, the divergence is no
# damage but what it learned.

# %% tags=["hide-input"]
found = Diagnosis(pair)
page = diagnosis_report.write(found, run.directory / "diagnosis")
for name, table in {"damage": found.damage, "rollback": found.returns()}.items():
    run.keep(f"diagnosis_{name}", table)
display(HTML(diagnosis_report.sections(found)))

# %% [markdown]
# **How to read it.** *Conflict modules* are where the predicted damage goes through; negative shares work against it.
# *Rollback candidates* set the coordinates with the highest $F_{ii}\delta_i^2$ ({prf:ref}`prop-rollback`) back to `before`:
# a good one returns much of the divergence on the first file and undoes little on the others. The controls say what as many
# coordinates return when they are chosen by size or at random. Coordinates are chosen on every other prompt and judged on
# the rest. *Overlap* above its chance band means that what was edited is what the skill uses.

# %% [markdown]
# (ch9-short)=
# ## In short

# %% tags=["hide-input"]
Markdown("\n".join(f"* {line}" for line in say.in_short(found)))

# %% [markdown]
# (ch9-rollback)=
# ## The repair
#
# `--keep 5%` keeps the first 5 % of the ranking by $F_{ii}\delta_i^2$ as the set that is taken back to `before`; all other
# coordinates stay as in `after`. The checkpoint that is written has after's configuration, tokenizer and number types, and
# loads wherever `after` loads. Nothing is computed twice: the rollback finds the diagnosis's Fisher matrix in the store.

# %% tags=["hide-input"]
repaired = run.directory / "repaired"
shutil.rmtree(repaired, ignore_errors=True)  # of an earlier run of this page
lines = diagnosis_report.repair(found, 5.0, repaired)
display(
    Markdown(f"```\n{example.command('rollback', '--keep 5%', '--out repaired')}\n```"),
    Markdown("\n".join(f"* {line}" for line in lines)),
)

# %% [markdown]
# (ch9-scale)=
# ## Larger models
#
# Derivatives are taken a piece of the model at a time (embedding, each block, head): going forward, only the hidden states
# between pieces are kept; going backward, each piece is run again. Weights, update and product are read and written a piece
# at a time, too, so that memory follows the largest piece and not the model, except where the model answers the
# prompts. `benchmarks/curvature_at_scale.py` measures it.

# %% tags=["hide-input"]
Markdown(say.at_scale(json.loads((paths.root() / "book" / "curvature_at_scale.json").read_text())))

# %% tags=["hide-input"]
HTML(provenance_box(run, "09_diagnose_your_own.py"))
