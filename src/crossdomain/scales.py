"""Results of other scales in a book: what was promoted of other profiles, as a part of its own beside the main chapters."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

PARTS = {  # the caption of a part in the table of contents, by scale
    "machinery": "The machinery alone",
    "toy": "A toy model",
    "small": "A real language model",
    "paper": "The paper's model",
}
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
LINK = re.compile(r"\]\(([\w-]+)\)")
REFERENCE = re.compile(r"(\{(?:ref|numref|doc)\}`(?:[^`<]*<)?)([\w-]+)(>?`)")
FIGURE = re.compile(r'<img class="figure"[^>]*>')


@dataclass(frozen=True)
class Scale:
    """Results of one profile, as a run or a promotion keeps them: headline, manifest and the findings on claims."""

    label: str
    headline: dict[str, Any]
    manifest: dict[str, Any]
    claims: dict[str, Any]

    @classmethod
    def read(cls, label: str, results: Path) -> Scale:
        """The results in a directory, which must have all three."""
        headline, manifest, claims = (
            json.loads((results / f"{name}.json").read_text()) for name in ("headline", "manifest", "claims")
        )
        return cls(label, headline, manifest, claims)

    @property
    def name(self) -> str:
        """Its scale: machinery, toy, small or paper."""
        return str(self.headline["scale"])

    @property
    def slug(self) -> str:
        """What begins the names of its pages and labels."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower())


def promoted(root: Path, but: str) -> dict[Path, Scale]:
    """The reference results in git of all profiles but one, by directory."""
    files = sorted((root / "results").glob("*/claims.json"))
    return {file.parent: Scale.read(file.parent.name, file.parent) for file in files if file.parent.name != but}


def add_parts(scales: dict[Path, Scale], chapters: list[str], source: Path) -> None:
    """Lay out the executed notebooks of other scales for Sphinx: pages, and a part each in the table of contents.

    Args:
        scales: as from `promoted`; those without executed notebooks are left out.
        chapters: the book's chapters, in order.
        source: what Sphinx reads, with its `_toc.yml` and `notebooks`.
    """
    toc = source / "_toc.yml"
    contents = yaml.safe_load(toc.read_text())
    place = 1 + max(
        i for i, part in enumerate(contents["parts"]) if any("notebooks/" in page["file"] for page in part["chapters"])
    )
    for directory, scale in scales.items():
        executed = {path.stem: path for path in (directory / "notebooks").glob("*.ipynb")}
        pages = [chapter for chapter in chapters if chapter in executed]
        if not pages:
            continue
        notebooks = {page: nbformat.read(executed[page], as_version=4) for page in pages}
        labels = {label for notebook in notebooks.values() for label in _labels(notebook)}
        for page, notebook in notebooks.items():
            _rewrite(notebook, functools.partial(_own, names={*pages, *labels}, prefix=f"{scale.slug}-"))
            _mark_title(notebook, f"({scale.label}, {scale.name})")
            mark_figures(notebook, scale.label, scale.name)
            nbformat.write(notebook, source / "notebooks" / f"{scale.slug}-{page}.ipynb")
        listed = [{"file": f"notebooks/{scale.slug}-{page}"} for page in pages]
        contents["parts"].insert(place, {"caption": PARTS[scale.name], "chapters": listed})
        place += 1
    toc.write_text(yaml.safe_dump(contents, sort_keys=False, allow_unicode=True))


def mark_figures(notebook: NotebookNode, label: str, scale: str) -> None:
    """Write beneath every figure of an executed notebook at which scale it was measured."""
    said = f'<span class="at-scale">scale: {scale}, profile {label}</span>'
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "text/html" in output.get("data", {}):
                output["data"]["text/html"] = FIGURE.sub(
                    lambda found: found[0] + said, "".join(output["data"]["text/html"])
                )


def _labels(notebook: NotebookNode) -> list[str]:
    return [label for cell in notebook.cells if cell.cell_type == "markdown" for label in LABEL.findall(cell.source)]


def _rewrite(notebook: NotebookNode, change: Callable[[str], str]) -> None:
    """Apply a change to all that Sphinx reads as Markdown: cells, and what cells show."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = change(cell.source)
        for output in cell.get("outputs", ()):
            if "text/markdown" in output.get("data", {}):
                output["data"]["text/markdown"] = change("".join(output["data"]["text/markdown"]))


def _own(text: str, names: set[str], prefix: str) -> str:
    """Labels, and links and references to a part's own pages and labels, with its prefix; all others as they are."""

    def prefixed(name: str) -> str:
        return prefix + name if name in names else name

    text = LABEL.sub(lambda found: f"({prefixed(found[1])})=", text)
    text = LINK.sub(lambda found: f"]({prefixed(found[1])})", text)
    return REFERENCE.sub(lambda found: found[1] + prefixed(found[2]) + found[3], text)


def _mark_title(notebook: NotebookNode, mark: str) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            title, *rest = cell.source.split("\n")
            cell.source = "\n".join([f"{title} {mark}", *rest])
            return
