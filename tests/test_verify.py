"""Verification end to end on the results of a study that never was: what agrees passes, a planted fault is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossdomain import claims, paths, provenance, reference, report, verify
from crossdomain import run as runs_of
from crossdomain.cli import app
from crossdomain.comparison import IDENTICAL, OTHER_SEEDS, SAME_SEEDS
from crossdomain.run import Run
from crossdomain.store import Store
from crossdomain.verify import Report, VerifyError
from synthetic_results import tables

ROOT = Path(__file__).parents[1]
SEEDS = "3 4 5 6 7"


@dataclass
class Study:
    """A run with its reference: where the two are, and the store."""

    run: Run
    reference: Path
    store: Store

    def verified(self, seeds: str = "") -> Report:
        return verify.verify("cpu", seeds, 1)

    def edit(self, name: str, change: Callable[[Any], None], *, reference: bool = True) -> None:
        """Change a JSON result in place."""
        path = (self.reference if reference else self.run.directory / "results") / name
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """An executed run of the reported seeds whose results were promoted; the workflow has nothing to do."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "profiles").symlink_to(ROOT / "profiles")
    monkeypatch.setenv("CROSSDOMAIN_HOME", str(home))
    monkeypatch.setattr(verify, "execute", lambda *_: None)
    store = Store(paths.store())
    for name in ("base-seed1", "code-seed3"):
        refer(3, name, kept(store, name))
    run = executed(SEEDS)
    verify.complete(run)
    return Study(run, reference.promote(run), store)


def executed(seeds: str) -> Run:
    """A run with the results that chapters would leave."""
    run = runs_of.open_run("cpu", seeds)
    for name, table in tables().items():
        run.keep(name, table)
    run.keep_values("headline", {})
    run.keep_values("costs", {"core_minutes": 90.0})
    run.keep_values(
        "manifest",
        {
            "parameters": run.parameters,
            "profile": run.profile.model_dump(),
            "commit": "0" * 40,
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
        },
    )
    return run


def kept(store: Store, name: str) -> Path:
    def make(output: Path, work: Path) -> None:
        (output / "model.safetensors").write_text(f"weights of {name}")

    return store.get(name, {"kind": "stage", "name": name}, make).path


def refer(seed: int, name: str, artifact: Path) -> None:
    uses = paths.run("cpu", [seed]) / "uses"
    uses.mkdir(parents=True, exist_ok=True)
    (uses / name).write_text(artifact.name + "\n")


def named(found: Report) -> dict[str, str]:
    """What differs, and what is said of it."""
    return {row.name: row.look_at for row in [*found.claims, *found.others] if row.agrees is False}


def test_the_same_results_agree(study: Study) -> None:
    found = study.verified()
    assert found.conditions == IDENTICAL and found.differences == []
    assert found.agrees and named(found) == {}
    assert found.seeds == {"reference": [3, 4, 5, 6, 7], "yours": [3, 4, 5, 6, 7]}
    assert [row.agrees for row in found.others] == [True, True, True]


def test_a_changed_reference_number_is_named(study: Study) -> None:
    study.edit("claims.json", lambda found: found["C7"]["rules"][0].update(value=0.7))
    found = study.verified()
    assert not found.agrees and list(named(found)) == ["C7"]
    assert "share of δᵀHδ in at most 64 directions of the shared route" in named(found)["C7"]


def test_a_changed_score_of_the_reference_is_named(study: Study) -> None:
    path = study.reference / "scores.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    column = lines[0].split(",").index("score")
    cells[column] = str(float(cells[column]) + 0.001)
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    found = study.verified()
    assert list(named(found)) == ["scores"] and "base, code test, T=1, seed 3" in named(found)["scores"]


def test_a_damaged_checkpoint_is_named(study: Study) -> None:
    weights = next(study.store.root.glob("code-seed3.*")) / "model.safetensors"
    weights.write_text("weights of code-seed4")
    said = named(study.verified())["the store"]
    assert "code-seed3" in said and "has another checksum" in said


def test_a_checkpoint_replaced_by_another_is_named(study: Study) -> None:
    one, other = (next(study.store.root.glob(f"{name}.*")) for name in ("code-seed3", "base-seed1"))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    said = named(study.verified())["the store"]
    assert "code-seed3" in said and "it holds another artifact, base-seed1" in said


def test_weights_replaced_together_with_their_checksum_are_named(study: Study) -> None:
    artifact = next(study.store.root.glob("code-seed3.*"))
    shutil.rmtree(artifact)
    forged = kept(Store(study.store.root.parent / "other"), "code-seed3")
    weights = forged / "model.safetensors"
    weights.write_text("weights of code-seed4")
    manifest = json.loads((forged / "manifest.json").read_text())
    from crossdomain.store import sha256

    manifest["files"]["model.safetensors"] = {"sha256": sha256(weights), "bytes": weights.stat().st_size}
    (forged / "manifest.json").write_text(json.dumps(manifest))
    shutil.copytree(forged, artifact)
    found = study.verified()
    assert named(found) == {"weights": "code-seed3: its weights are not the reference's"}


def test_an_inverted_rule_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [replace(c, rules=(replace(c.rules[0], side="above"), *c.rules[1:])) if c.id == "C3" else c
              for c in claims.CLAIMS]  # fmt: skip
    monkeypatch.setattr(claims, "CLAIMS", broken)
    found = study.verified()
    assert list(named(found)) == ["C3"]
    assert "the rules differ: mean absolute cosine of two domains' gradients, now above 0.1" in named(found)["C3"]
    assert "verdict partly instead of reproduced" in named(found)["C3"]


def test_other_versions_are_said_and_compared_within_tolerance(study: Study) -> None:
    def change(found: Any) -> None:
        found["versions"]["torch"] = "2.12.0"

    study.edit("manifest.json", change)
    study.edit("claims.json", lambda found: found["C9"]["rules"][0].update(value=10.0))
    found = study.verified()
    assert found.conditions == SAME_SEEDS and found.agrees
    assert found.differences == [f"torch version: 2.12.0 in the reference, {provenance.versions()['torch']} here"]


def test_other_seeds_are_compared_by_intervals(study: Study) -> None:
    executed("0 1 2")
    found = study.verified("0 1 2")
    assert found.conditions == OTHER_SEEDS and found.agrees
    assert {row.name: row.agrees for row in found.others}["scores"] is None


def test_without_a_reference_it_is_said_how_to_make_one(study: Study) -> None:
    (study.reference / "claims.json").unlink()
    with pytest.raises(VerifyError, match="crossdomain promote --profile cpu"):
        study.verified()


def test_the_command_fails_where_a_row_differs_and_leaves_a_report(study: Study) -> None:
    passed = CliRunner().invoke(app, ["verify", "--profile", "cpu"])
    assert passed.exit_code == 0, passed.output
    page = study.run.directory / "verify" / "report.html"
    assert page.as_uri() in passed.output
    study.edit("claims.json", lambda found: found["C2"].update(verdict="partly"))
    failed = CliRunner().invoke(app, ["verify", "--profile", "cpu"])
    assert failed.exit_code == 1
    assert "C2 differs: verdict reproduced instead of partly. Look at chapter 2" in failed.output
    assert json.loads((page.parent / "report.json").read_text())["agrees"] is False


def strict(text: str) -> Any:
    """JSON without NaN, which other readers refuse."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_the_report_holds_everything_and_loads_nothing(study: Study, tmp_path: Path) -> None:
    study.edit("claims.json", lambda found: found["C2"].update(verdict="partly"))
    page = report.write(study.verified(), tmp_path / "verify")
    text, data = page.read_text(), strict((tmp_path / "verify" / "report.json").read_text())
    for claim, row in zip(claims.CLAIMS, data["claims"], strict=True):
        assert (row["name"], row["statement"]) == (claim.id, claim.statement)
        assert row["yours"]["rules"][0]["measured"] in text and row["paper"] == claim.paper
    for said in (
        "66.04",
        "verdict partly",
        "90.0",
        "secondary sources",
        provenance.versions()["torch"],
        "Look at chapter 2",
    ):
        assert said in text, said
    assert "http" not in text and "src=" not in text and "checks the machinery" not in text
    assert data["environment"]["yours"]["threads"] == 1 and data["seconds"] >= 0


def test_a_report_on_the_machinery_says_that_it_checks_no_claims(study: Study) -> None:
    found = study.verified()
    found = replace(found, profile=found.profile.override({"scale": "machinery"}))
    assert "checks the machinery, not the claims" in report.as_html(found)
    assert report.in_short(found)[0] == report.MACHINERY


def test_a_failed_job_of_the_workflow_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "workflow").mkdir(parents=True)
    (home / "profiles").symlink_to(ROOT / "profiles")
    shutil.copy(ROOT / "_toc.yml", home)
    (home / "workflow" / "Snakefile").write_text("raise ValueError('planted fault')\n")
    monkeypatch.setenv("CROSSDOMAIN_HOME", str(home))
    from crossdomain.profiles import load_profile

    with pytest.raises(VerifyError, match="planted fault"):
        verify.execute("smoke", load_profile("smoke"), [0], 1)
