"""Building the book: pages, executed notebooks and measured values in, HTML out.

Pages quote numbers as `{{ name }}`; they are filled in from the run's result files. Nothing is executed here, and the
pages load nothing from the network.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pandas as pd
import yaml

from crossdomain import chapters, claims, costs, paper_plan, paths, plots, reference, scales
from crossdomain.lineage import Lineage
from crossdomain.plots import theory
from crossdomain.profiles import Profile, load_profile
from crossdomain.run import Run
from crossdomain.words import claims as say_claims
from crossdomain.words import scales as say_scales

logger = logging.getLogger(__name__)


class BookError(RuntimeError):
    """The book could not be built; the message says why and what to do."""


@dataclass(frozen=True)
class Material:
    """What a book shows of a run: directories of its executed notebooks, of its figures and of its result files."""

    notebooks: Path
    figures: Path
    results: Path

    @classmethod
    def of_run(cls, run: Path) -> Material:
        """What a run left in its directory."""
        return cls(run / "notebooks", run / "figures", run / "results")

    @classmethod
    def of_reference(cls, directory: Path) -> Material:
        """What was promoted to reference results."""
        return cls(directory / "notebooks", directory / "figures", directory)


def build(profile: Profile, seeds: list[int], output: Path | None = None) -> Path:
    """Build the book from what a run left.

    Args:
        profile: of the run.
        seeds: of the run.
        output: where `_build` goes; by default the project.

    Returns:
        The landing page.

    Raises:
        BookError: the first chapter has not been executed, or Sphinx warned.
        ClaimError: a chapter that was run left a table without what a claim reads.
    """
    run = paths.run(profile.label, seeds)
    lineages = [Lineage(profile, seed) for seed in seeds]
    claims.judge_run(Run(profile=profile, seeds=seeds, parameters={}, lineages=lineages, directory=run))
    return _built(profile, Material.of_run(run), output or paths.root())


def build_reference(profile: Profile, output: Path | None = None) -> Path:
    """Build the book from the reference results in git: nothing is trained and nothing is executed.

    Args:
        profile: whose results.
        output: where `_build` goes; by default the project.

    Returns:
        The landing page.

    Raises:
        BookError: the profile has no reference results, or Sphinx warned.
    """
    directory = reference.directory(profile.label)
    if not (directory / "notebooks").is_dir():
        raise BookError(
            f"{directory} has no executed notebooks: `make reproduce PROFILE={profile.name}` makes a book of your own"
        )
    return _built(profile, Material.of_reference(directory), output or paths.root())


def _built(profile: Profile, material: Material, target: Path) -> Path:
    source = target / "_build" / "source"
    assemble(paths.root(), material, source, profile)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(target)]
    done = subprocess.run([*command, "-W", "-n", "--keep-going", "--all"], capture_output=True, text=True)
    (target / "_build" / "build.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        warnings = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookError(
            "the book did not build without warnings:\n"
            + "\n".join(warnings[:20] or done.stderr.splitlines()[-20:])
            + f"\nAll of it: {target / '_build' / 'build.log'}"
        )
    return target / "_build" / "html" / "index.html"


def assemble(root: Path, material: Material, source: Path, profile: Profile) -> None:
    """Lay out what Sphinx reads: pages, executed notebooks, figures, notebook sources and the values they quote.

    A chapter that was not executed in that run is shown without results, and says why. What was promoted of other profiles
    follows as a part of its own.

    Raises:
        BookError: the first chapter, which the pages quote, has not been executed.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book")
    shutil.copy(root / "_toc.yml", source)
    (source / "notebooks").mkdir()
    sources = source / "extra" / "sources"
    sources.mkdir(parents=True)
    listed = chapters.listed(root / "_toc.yml")
    for chapter in listed:
        notebook = root / "notebooks" / f"{chapter}.py"
        shutil.copy(notebook, sources)
        executed = material.notebooks / f"{chapter}.ipynb"
        if reason := chapters.missing(profile, chapter):
            _show_without_results(notebook, source / "notebooks", "Not run at this scale", reason)
        elif executed.is_file():
            shown = nbformat.read(executed, as_version=4)
            scales.mark_figures(shown, profile.label, profile.scale)
            nbformat.write(shown, source / "notebooks" / executed.name)
        elif chapter == listed[0]:
            raise BookError(
                f"{chapter} has not been executed in {material.notebooks.parent}: run `crossdomain run {chapter}`, "
                "`make reproduce`, or `make read` for the results in git"
            )
        else:
            how = f"`make reproduce CHAPTERS={chapter[:2]}` runs this chapter, `make reproduce` all of them"
            _show_without_results(notebook, source / "notebooks", "Not run yet", how)
    shutil.copytree(material.figures, source / "book" / "figures")
    plots.theme()
    theory.save_conflict_picture(source / "book" / "figures" / "conflict.png")
    main, others = scales.Scale.read(profile.label, material.results), scales.promoted(root, but=profile.label)
    scales.add_parts(others, listed, source)
    _fill_in_claims(source / "book" / "claims.md", main.claims)
    _fill_in_scales(source / "book" / "scales.md", [main, *others.values()])
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["config"]["myst_substitutions"] = {
        **values(root, material.results),
        **_seed_sets(),
        "seeds_by_chapter": say_scales.seeds_by_chapter(main),
        "paper_plan": paper_plan.table(),
    }
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))


def _show_without_results(notebook: Path, target: Path, title: str, reason: str) -> None:
    shown = jupytext.read(notebook)
    note = f":::{{admonition}} {title}\n:class: note\n{reason}.\n:::"
    shown.cells.insert(1, nbformat.v4.new_markdown_cell(note))
    jupytext.write(shown, target / f"{notebook.stem}.ipynb")


def _fill_in_claims(page: Path, found: Mapping[str, Any]) -> None:
    text = page.read_text()
    text = text.replace("<!-- claims: summary -->", f"{say_claims.STYLE}\n\n{say_claims.summary(found)}")
    page.write_text(text.replace("<!-- claims: sections -->", say_claims.sections(found)))


def _fill_in_scales(page: Path, found: list[scales.Scale]) -> None:
    shown = [scale for scale in found if scale.name != "machinery"] or found  # numbers of the machinery mean nothing
    text = page.read_text()
    text = text.replace("<!-- scales: descriptions -->", "\n".join(map(say_scales.description, shown)))
    table = f"{say_claims.STYLE}\n\n{say_scales.comparison(shown)}"
    page.write_text(text.replace("<!-- scales: comparison -->", table))


def _seed_sets() -> dict[str, str]:
    """Which seeds of `cpu` did what, for the claims page."""
    cpu = load_profile("cpu")
    return {
        "settings_seeds": f"{claims.SETTINGS_FROM} and above",
        "quick_seeds": " ".join(map(str, claims.QUICK_SEEDS)),
        "reported_seeds": " ".join(map(str, claims.REPORTED_SEEDS)),
        "reported_bases": " ".join(str(cpu.base_seed(seed)) for seed in claims.REPORTED_SEEDS),
    }


def fill_in_readme(root: Path) -> None:
    """Write the table of claims of the reference results of `cpu` into the README, between its markers."""
    results, readme = root / "results" / "cpu", root / "README.md"
    found, seeds = {}, ""
    if (results / "claims.json").is_file():
        found = json.loads((results / "claims.json").read_text())
        seeds = json.loads((results / "manifest.json").read_text())["parameters"]["seeds"]
    before, _, rest = readme.read_text().partition("<!-- claims -->\n")
    _, _, after = rest.partition("<!-- /claims -->\n")
    readme.write_text(f"{before}<!-- claims -->\n{say_claims.readme(found, seeds)}\n<!-- /claims -->\n{after}")


def values(root: Path, results: Path) -> dict[str, Any]:
    """What pages may quote: a run's headline numbers, the paper's, and what each profile cost to run."""
    from crossdomain import paper

    found: dict[str, Any] = json.loads((results / "headline.json").read_text())
    found |= {f"paper_{name}": f"{value:g}" for name, value in paper.REPORTED["value"].items()}
    found["basis"] = say_scales.basis(found["seeds"], found["base_seeds"])
    found["costs"] = cost_table(root, results)
    found["costs_by_part"] = part_table(pd.read_csv(results / "costs_by_part.csv"))
    return found


def cost_table(root: Path, results: Path) -> str:
    """A Markdown table of what each profile took, where it was run: this run, and the reference results in git."""
    files = [*sorted((root / "results").glob("*/costs.json")), results / "costs.json"]
    found = {row["profile"]: row for row in (json.loads(file.read_text()) for file in files if file.is_file())}
    rows = [
        {
            "profile": f"`{row['profile']}`",
            "seeds": row["seeds"],
            "minutes of one core": f"{row['core_minutes']:.0f}"
            if row["core_minutes"] >= 2
            else f"{row['core_minutes']:.1f}",
            "memory a process": f"{row['peak_memory_gib']:.1f} GiB",
            "measured on": f"{row['processor']}, {row['cores']} cores",
        }
        for row in found.values()
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False))


def part_table(parts: pd.DataFrame) -> str:
    """The table of `costs.by_part` in Markdown, with its sum."""
    rows = [
        {
            "part": costs.PARTS[row["part"]],
            "checkpoints and measurements": row["artifacts"],
            "minutes of one core": f"{row['core_minutes']:.1f}",
            "memory a process": f"{row['peak_memory_gib']:.1f} GiB",
        }
        for _, row in parts.iterrows()
    ]
    total = {"part": "all", "checkpoints and measurements": parts["artifacts"].sum()}
    total |= {
        "minutes of one core": f"{parts['core_minutes'].sum():.1f}",
        "memory a process": f"{parts['peak_memory_gib'].max():.1f} GiB",
    }
    return str(pd.DataFrame([*rows, total]).to_markdown(index=False))
