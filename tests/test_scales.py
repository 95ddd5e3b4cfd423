"""Other scales in a book: their pages and labels are their own, and every figure says at which scale it was measured."""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import yaml

from crossdomain import paths, scales

FIRST = """# %% [markdown]
# # Staged training
#
# (ch1-gains)=
# ## Gains, see [damage](04_damage_theory), [rollback](06_rollback) and {prf:ref}`prop-damage`

# %%
1
"""
FOURTH = """# %% [markdown]
# # Damage
#
# As [there](ch1-gains), in {ref}`chapter 1 <ch1-gains>`, {ref}`ch1-gains` and [chapter 1](01_staged_training);
# not {ref}`ch6-pairs`.
"""
FIGURE = '<div><img class="figure" alt="a &gt; b" src="data:,"></div>'


def promoted(root: Path, label: str, scale: str = "small", notebooks: bool = True) -> Path:
    results = root / "results" / label
    (results / "notebooks").mkdir(parents=True)
    (results / "claims.json").write_text("{}")
    (results / "manifest.json").write_text("{}")
    (results / "headline.json").write_text(json.dumps({"scale": scale}))
    for name, text in (("01_staged_training", FIRST), ("04_damage_theory", FOURTH)) if notebooks else ():
        notebook = jupytext.reads(text, fmt="py:percent")
        if name.startswith("01"):
            shown = {"text/html": FIGURE, "text/markdown": "as in [chapter 4](04_damage_theory)"}
            notebook.cells[1].outputs = [nbformat.v4.new_output("display_data", shown)]
        nbformat.write(notebook, results / "notebooks" / f"{name}.ipynb")
    return results


def test_pages_of_another_scale_have_names_labels_and_links_of_their_own(tmp_path: Path) -> None:
    promoted(tmp_path, "cpu", "toy")
    promoted(tmp_path, "tiny+steps=2")
    promoted(tmp_path, "tables", notebooks=False)
    source = tmp_path / "source"
    (source / "notebooks").mkdir(parents=True)
    (source / "_toc.yml").write_text((paths.root() / "_toc.yml").read_text())
    others = scales.promoted(tmp_path, but="cpu")
    assert [scale.label for scale in others.values()] == ["tables", "tiny+steps=2"]
    scales.add_parts(others, ["01_staged_training", "02_sparse_edits", "04_damage_theory"], source)

    contents = yaml.safe_load((source / "_toc.yml").read_text())
    captions = [part["caption"] for part in contents["parts"]]
    assert captions.index("A real language model") == captions.index("Experiments") + 1
    pages = ["notebooks/tiny-steps-2-01_staged_training", "notebooks/tiny-steps-2-04_damage_theory"]
    added = contents["parts"][captions.index("A real language model")]
    assert [page["file"] for page in added["chapters"]] == pages
    first, fourth = (nbformat.read(source / f"{page}.ipynb", as_version=4) for page in pages)
    assert first.cells[0].source.startswith("# Staged training (tiny+steps=2, small)\n\n(tiny-steps-2-ch1-gains)=\n")
    assert "[damage](tiny-steps-2-04_damage_theory), [rollback](06_rollback) and {prf:ref}`prop-damage`" in (
        first.cells[0].source
    )
    assert (
        "As [there](tiny-steps-2-ch1-gains), in {ref}`chapter 1 <tiny-steps-2-ch1-gains>`, " in fourth.cells[0].source
    )
    assert "{ref}`tiny-steps-2-ch1-gains` and [chapter 1](tiny-steps-2-01_staged_training)" in fourth.cells[0].source
    assert "not {ref}`ch6-pairs`" in fourth.cells[0].source
    shown = first.cells[1].outputs[0]["data"]
    assert shown["text/markdown"] == "as in [chapter 4](tiny-steps-2-04_damage_theory)"
    assert "scale: small, profile tiny+steps=2" in shown["text/html"]


def test_every_figure_is_marked_and_nothing_else_changes() -> None:
    notebook = jupytext.reads(FIRST, fmt="py:percent")
    shown = [{"text/html": FIGURE + FIGURE}, {"text/html": "<p>no figure</p>"}, {"text/plain": FIGURE}]
    notebook.cells[1].outputs = [nbformat.v4.new_output("display_data", data) for data in shown]
    scales.mark_figures(notebook, "cpu", "toy")
    marked, *others = (output["data"] for output in notebook.cells[1].outputs)
    assert marked["text/html"].count('<span class="at-scale">scale: toy, profile cpu</span>') == 2
    assert re.sub("<span.*?</span>", "", marked["text/html"]) == FIGURE + FIGURE
    assert others == shown[1:]
