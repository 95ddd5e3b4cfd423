"""From nothing to pages in a browser: the smoke profile through papermill and Sphinx, then what a reader would see."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from crossdomain import book, words
from crossdomain.profiles import load_profile

ROOT = Path(__file__).parents[2]
CHAPTERS = (
    *("01_staged_training", "02_sparse_edits", "03_route_overlap", "04_damage_theory"),
    *("05_refresh", "06_rollback", "07_alternating_refresh", "08_alternatives", "09_diagnose_your_own"),
)
PAGES = (
    "book/index",
    "book/reproduce",
    "book/scaling",
    "book/domains",
    "book/theory",
    "book/claims",
    "book/scales",
    "book/references",
)
PAGES += tuple(f"notebooks/{chapter}" for chapter in CHAPTERS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own with everything made from nothing by the workflow, for two seeds."""
    project = _copy(tmp_path_factory.mktemp("project"))
    _reproduce(project)
    return project


def _copy(project: Path) -> Path:
    for name in ("README.md", "_config.yml", "_toc.yml", "book", "notebooks", "profiles", "workflow", "src"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, project / name)
    return project


def _reproduce(project: Path, profile: str = "smoke", seeds: str = "0 1") -> str:
    settings = (f"profile={profile}", f"seeds={seeds}", "chapters=")  # as make says it
    return _said(project, "snakemake", "-s", "workflow/Snakefile", "--cores", "2", "--config", *settings)


def _said(project: Path, *command: str) -> str:
    """What a command says that ends well in a project."""
    environment = {
        **os.environ,
        "CROSSDOMAIN_HOME": str(project),
        "CROSSDOMAIN_RUNS": str(project / "runs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def html(built: Path) -> Path:
    return built / "_build" / "html"


@pytest.fixture(scope="module")
def results(built: Path) -> Path:
    return built / "runs" / "smoke" / "seeds-0-1" / "results"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if executable is None:
        if "CROSSDOMAIN_REQUIRE_BROWSER" in os.environ:
            pytest.fail("no Chromium found, and CROSSDOMAIN_REQUIRE_BROWSER is set")
        pytest.skip("no Chromium found: install one to test the pages in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def test_a_second_run_with_nothing_changed_does_nothing(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built / "runs" / "store").glob("*/manifest.json")}
    assert "Nothing to be done" in _reproduce(built)
    after = {path: path.stat().st_mtime_ns for path in (built / "runs" / "store").glob("*/manifest.json")}
    assert before == after


def test_a_profile_of_one_domain_has_a_book_that_says_which_chapters_it_leaves_out(built: Path, tmp_path: Path) -> None:
    project = _copy(tmp_path)
    (project / "profiles" / "single.yaml").write_text("extends: smoke\nstages: [math]\n")
    (project / "runs").mkdir()
    (project / "runs" / "store").symlink_to(built / "runs" / "store")  # the base and Math's expert are there
    _reproduce(project, "single", "0")
    text = (project / "_build" / "html" / "notebooks" / "03_route_overlap.html").read_text()
    assert "Not run at this scale" in text and "this chapter compares domains" in text
    text = (project / "_build" / "html" / "notebooks" / "01_staged_training.html").read_text()
    assert "Not run at this scale" not in text and 'class="figure"' in text


def test_a_chapter_that_was_not_run_is_shown_without_results_and_says_how_to_run_it(
    built: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(built / "runs" / "smoke" / "seeds-0-1", tmp_path / "run")
    (run / "notebooks" / "05_refresh.ipynb").unlink()
    book.assemble(built, book.Material.of_run(run), tmp_path / "source", load_profile("smoke"))
    shown = {c: json.loads((tmp_path / "source" / "notebooks" / f"{c}.ipynb").read_text())["cells"] for c in CHAPTERS}
    without = {c for c, cells in shown.items() if not any(cell.get("outputs") for cell in cells)}
    assert without == {"05_refresh"}
    assert "make reproduce CHAPTERS=05" in "".join(shown["05_refresh"][1]["source"])


def test_what_is_promoted_makes_the_same_book_without_the_run_and_verifies(built: Path, tmp_path: Path) -> None:
    options = ("--profile", "smoke", "--seeds", "0 1")
    _said(built, "crossdomain", "promote", *options)
    reader = _copy(tmp_path)
    shutil.copytree(built / "results", reader / "results")
    _said(reader, "crossdomain", "book", "--reference", "--profile", "smoke")
    for page in PAGES:
        first, second = ((where / "_build" / "html" / f"{page}.html").read_text() for where in (built, reader))
        assert first.count('class="figure"') == second.count('class="figure"'), page
        assert re.findall(r"<td>.*?</td>", first) == re.findall(r"<td>.*?</td>", second), page
    said = _said(built, "crossdomain", "verify", "--profile", "smoke", "--jobs", "2")
    agreeing, compared = map(int, re.findall(r"(\d+) of (\d+) compared rows agree", said)[0])
    assert agreeing == compared > 10


def test_every_page_is_there_and_nothing_is_left_to_fill_in(html: Path) -> None:
    for page in PAGES:
        text = (html / f"{page}.html").read_text()
        assert "{{" not in text, page
        assert "Traceback" not in text, page
        assert not re.search(r"\{\w+:\w+\}|\|\s*(-{3}|—)", text), page  # roles and tables of outputs are rendered


def test_the_numbers_on_the_landing_page_are_those_of_the_result_file(html: Path, results: Path) -> None:
    headline = json.loads((results / "headline.json").read_text())
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", (html / "book" / "index.html").read_text()))
    for name in ("peak", "damaged", "refreshed", "damage", "refresh_gain", "average_damaged", "average_refreshed"):
        assert headline[name] in text, name


def test_the_chapter_shows_the_result_tables(html: Path, results: Path) -> None:
    import pandas as pd

    text = (html / "notebooks" / "01_staged_training.html").read_text()
    table = pd.read_csv(results / "scores_over_seeds.csv")
    for _, row in table.iterrows():
        assert f"{row['score']:.1f} ± {row['sd']:.1f}" in text
    assert text.count('class="figure"') == 6
    assert not re.search(r'<img class="figure"[^>]*alt=""', text)


@pytest.mark.parametrize(("chapter", "figures"), [*zip(CHAPTERS[:8], (6, 6, 10, 8, 7, 6, 3, 3), strict=True)])
def test_a_chapter_shows_its_figures_with_words_for_those_who_cannot_see_them(
    html: Path, chapter: str, figures: int
) -> None:
    text = (html / "notebooks" / f"{chapter}.html").read_text()
    assert text.count('class="figure"') == figures
    assert not re.search(r'<img class="figure"[^>]*alt=""', text)


def test_verdicts_quote_the_numbers_that_are_kept(html: Path, results: Path) -> None:
    kept = json.loads((results / "sparse_edits.json").read_text())
    text = (html / "notebooks" / "02_sparse_edits.html").read_text()
    for name, digits in (("unchanged", 1), ("relative_norm", 1), ("neuron_jaccard", 2)):
        assert words.plain(kept[name][0], digits) in text[text.index("In short") :], name
    kept = json.loads((results / "damage_theory.json").read_text())
    text = (html / "notebooks" / "04_damage_theory.html").read_text()
    for name in ("first", "second", "actual"):
        assert words.plain(kept[name][0], 3, sign=True) in text[text.index("In short") :], name


def test_the_theory_numbers_its_statements_and_chapters_link_them(html: Path) -> None:
    text = (html / "book" / "theory.html").read_text()
    assert "Proposition 1" in text and "Theorem 1" in text and "conflict.png" in text
    chapter = (html / "notebooks" / "04_damage_theory.html").read_text()
    assert 'href="../book/theory.html#prop-damage"' in chapter


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_provenance_box_links_the_source(html: Path, chapter: str) -> None:
    text = (html / "notebooks" / f"{chapter}.html").read_text()
    box = text[text.index('class="provenance"') :]
    for word in ("profile", "smoke", "base seeds", "commit", "torch 2.13.0", "cores", "wall time"):
        assert word in box
    link = re.search(r'href="\.\./(sources/[^"]+)"', box)
    assert link is not None
    assert (html / link.group(1)).read_text() == (ROOT / "notebooks" / f"{chapter}.py").read_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_load_nothing_from_the_network_and_do_not_scroll_sideways(
    html: Path, browser: Browser, width: int
) -> None:
    page: Page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for name in PAGES:
        page.goto((html / f"{name}.html").as_uri())
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        broken = page.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src)")
        assert broken == [], name
        if name in ("book/theory", "notebooks/01_staged_training", "notebooks/04_damage_theory"):
            page.wait_for_selector("mjx-container")  # formulas are set, by the MathJax that is shipped
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert faults == []
    page.close()


def test_another_scale_has_pages_of_its_own_beside_the_main_chapters(browser: Browser, tmp_path: Path) -> None:
    project = _copy(tmp_path)
    for name in ("cpu", "other"):
        shutil.copytree(ROOT / "results" / "cpu", project / "results" / name)
    (project / "results" / "other" / "notebooks" / "08_alternatives.ipynb").unlink()
    headline = project / "results" / "other" / "headline.json"
    headline.write_text(json.dumps(json.loads(headline.read_text()) | {"scale": "small", "seeds": "0 1 2"}))
    _said(
        project, "crossdomain", "book", "--reference", "--profile", "cpu"
    )  # as Sphinx warns of nothing, labels differ
    html = project / "_build" / "html"
    for chapter in CHAPTERS[:7]:
        first, second = ((html / "notebooks" / f"{name}{chapter}.html").read_text() for name in ("", "other-"))
        assert first.count('class="figure"') == first.count("scale: toy, profile cpu") > 0
        assert (
            second.count('class="figure"')
            == second.count("scale: small, profile other")
            == first.count('class="figure"')
        )
        assert "(other, small)" in second
    assert not (html / "notebooks" / f"other-{CHAPTERS[7]}.html").exists()
    damage = (html / "notebooks" / f"other-{CHAPTERS[3]}.html").read_text()
    assert f'href="other-{CHAPTERS[4]}.html"' in damage and 'href="../book/theory.html#prop-damage"' in damage
    for width, name in product(
        (390, 1280), ("book/scales", *(f"notebooks/other-{chapter}" for chapter in CHAPTERS[:7]))
    ):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((html / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.close()


def test_each_seed_has_an_executed_notebook_of_its_own(built: Path) -> None:
    for seed, chapter in product((0, 1), CHAPTERS):
        executed = json.loads(
            (built / "runs" / "smoke" / f"seed-{seed}" / "notebooks" / f"{chapter}.ipynb").read_text()
        )
        assert executed["metadata"]["papermill"]["parameters"] == {"profile": "smoke", "seeds": str(seed)}
