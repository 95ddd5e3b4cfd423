"""A diagnosis of small random checkpoints against the same quantities computed with whole models in memory."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from crossdomain import (
    curvature,
    diagnosis_needs,
    diagnosis_report,
    layerwise_curvature,
    models,
    objectives,
    overlap,
    paths,
    rollback,
)
from crossdomain.checkpoint_pair import FISHER, MAGNITUDE, RANDOM, Candidate, CheckpointPair
from crossdomain.cli import app
from crossdomain.curvature import ParameterSpace
from crossdomain.diagnosis import Diagnosis
from crossdomain.layerwise import Decoder
from crossdomain.profiles import load_profile
from crossdomain.prompt_files import Answers
from crossdomain.rollouts import Rollouts
from crossdomain.store import Store
from crossdomain.words import diagnosis as say

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # a dependency's

STEP = 0.01  # of the random updates, short enough for the quadratic model
NEW_TOKENS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints base, before and after, each a random step from the last, and two files of prompts."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tokenizer = models.tiny_tokenizer()
    whole = models.tiny_model(load_profile("smoke"), tokenizer, 0)
    for seed, name in enumerate(("base", "before", "after")):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter += (0.1 if name == "base" else STEP) * torch.randn_like(parameter)
        whole.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    for name, sign in (("sums", "+"), ("differences", "-")):
        prompts = ({"prompt": f"{i}{sign}{i % 7}="} for i in range(10, 22))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return folder


def pair_of(folder: Path, store: Store, **options: Path) -> CheckpointPair:
    files = [folder / "sums.jsonl", folder / "differences.jsonl"]
    given = {"before": folder / "before", "after": folder / "after", "base": folder / "base", **options}
    return CheckpointPair(given["before"], given["after"], files, given["base"], max_new_tokens=NEW_TOKENS, store=store)


@pytest.fixture(scope="module")
def found(folder: Path) -> Diagnosis:
    return Diagnosis(pair_of(folder, Store(folder / "store")))


class Whole:
    """The models in memory, before's answers to a file, and their objectives."""

    def __init__(self, found: Diagnosis, name: str = "sums", role: str = "before") -> None:
        paths = found.pair.paths
        self.model = models.load_model(paths[role], attn_implementation="eager")
        self.params = objectives.parameters(self.model)
        self.space = ParameterSpace(self.params)
        self.before, self.after = (
            self.space.flatten(objectives.parameters(models.load_model(paths[r]))) for r in ("before", "after")
        )
        self.delta = self.after - self.before
        self.answers = found.pair.answers(role, name)

    def rollouts(self, half: int) -> Rollouts:
        answers: Answers = self.answers.half(half)
        return Rollouts("", "", answers.prompts, answers.responses, torch.zeros(len(answers.prompts), 1))

    def divergence(self, half: int, flat: torch.Tensor) -> torch.Tensor:
        return objectives.kl(self.model, self.rollouts(half)).per_prompt(self.space.unflatten(flat))


def test_damage_is_that_of_the_whole_model_on_the_judging_prompts(found: Diagnosis) -> None:
    for name in ("sums", "differences"):
        whole = Whole(found, name)
        row = found.damage[found.damage["prompts"] == name].iloc[0]
        actual = whole.divergence(1, whole.after)
        objective = objectives.kl(whole.model, whole.rollouts(1))
        product = curvature.ggn_vp(objective, whole.params, whole.delta)
        assert row["judged"] == 6 and row["tokens"] == sum(map(len, whole.rollouts(1).responses))
        assert row["actual"] == pytest.approx(actual.mean().item(), rel=1e-4)
        assert row["actual_error"] == pytest.approx(actual.std().item() / 6**0.5, rel=1e-3)
        assert row["predicted"] == pytest.approx(0.5 * float(product @ whole.delta), rel=1e-4)
        parts = whole.space.unflatten(product * whole.delta / 2)
        modules = found.modules[found.modules["prompts"] == name].set_index("name")
        assert {*modules.index} == {*parts}
        for tensor, part in parts.items():
            assert modules.loc[tensor, "value"] == pytest.approx(float(part.sum()), rel=1e-3, abs=1e-9)
        assert modules["share"].sum() == pytest.approx(1)


def test_returns_and_costs_are_those_of_the_rolled_back_model(found: Diagnosis) -> None:
    skill, kept = Whole(found), Whole(found, "differences", "after")
    fisher = curvature.fisher_diagonal(
        objectives.negative_log_likelihood(skill.model, skill.rollouts(0), batch_size=1), skill.params
    )
    order = rollback.ranking(rollback.fisher_scores(fisher, skill.delta))
    hurt, learned = skill.divergence(1, skill.after), kept.divergence(1, kept.before)
    table = found.returns().set_index(["ranking", "percent", "prompts"])
    for percent in (1.0, 5.0, 10.0):
        count = round(percent / 100 * skill.space.size)
        repaired = skill.before + rollback.rolled_back(skill.delta, order[:count], 1.0)
        gain, cost = (table.loc[(FISHER, percent, name)] for name in ("sums", "differences"))
        assert gain["coordinates"] == count and gain["role"] == "returned" and cost["role"] == "cost"
        returned = hurt - skill.divergence(1, repaired)
        assert gain["actual"] == pytest.approx(returned.mean().item(), rel=1e-3)
        assert gain["whole"] == pytest.approx(hurt.mean().item(), rel=1e-4)
        undone = kept.divergence(1, repaired)
        assert cost["actual"] == pytest.approx(undone.mean().item(), rel=1e-3)
        assert cost["whole"] == pytest.approx(learned.mean().item(), rel=1e-4)
        left = repaired - skill.before
        objective = objectives.kl(skill.model, skill.rollouts(1))
        forms = [0.5 * float(curvature.ggn_vp(objective, skill.params, v) @ v) for v in (skill.delta, left)]
        assert gain["predicted"] == pytest.approx(forms[0] - forms[1], rel=1e-3)
    assert {(r, p) for r, p, _ in table.index if r != FISHER} == {(MAGNITUDE, 5.0), (RANDOM, 5.0)}


def test_overlap_is_between_edited_neurons_and_routes(found: Diagnosis) -> None:
    table = found.overlap.set_index(["a", "b"])
    sets = ["edited by after", "edited by before", "route of sums", "route of differences"]
    assert [*table.index] == [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    neurons = found.edits["neurons"]
    edited = overlap.top(neurons["magnitude"], 0.1)
    scores = found.route_scores("sums")
    route = overlap.top(scores[scores["kind"] == "neuron"]["contribution"], 0.1)
    assert table.loc[("edited by after", "route of sums"), "jaccard"] == pytest.approx(overlap.jaccard(edited, route))


def test_directions_are_cosines_and_opposite_signs_of_the_two_updates(found: Diagnosis, folder: Path) -> None:
    base, before, after = (
        torch.cat([p.flatten() for p in models.load_model(folder / name).parameters()])
        for name in ("base", "before", "after")
    )
    first, second = before - base, after - before
    table = found.directions
    assert table is not None
    row = table.set_index("module").loc["all"]
    assert row["cosine"] == pytest.approx(torch.cosine_similarity(first, second, dim=0).item(), abs=1e-5)
    moved = (first != 0) & (second != 0)
    opposite = (first.sign() != second.sign())[moved].double().mean().item()
    assert row["opposite"] == pytest.approx(opposite, abs=1e-6)


def test_a_repaired_checkpoint_is_what_was_judged(found: Diagnosis, tmp_path: Path) -> None:
    lines = diagnosis_report.repair(found, 5.0, tmp_path / "repaired")
    skill = Whole(found)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "repaired")
    flat = skill.space.flatten(objectives.parameters(model))
    returned = (skill.divergence(1, skill.after) - skill.divergence(1, flat)).mean().item()
    row = found.returns([Candidate(FISHER, 5.0)]).iloc[0]
    assert row["actual"] == pytest.approx(returned, rel=1e-3)
    count = round(0.05 * skill.space.size)
    assert lines[0] == f"{count:,} of {skill.space.size:,} parameters taken back."
    assert int((flat != skill.after).sum()) <= count
    with pytest.raises(FileExistsError):
        diagnosis_report.repair(found, 5.0, tmp_path / "repaired")


def test_without_a_base_or_other_prompts_less_is_said(folder: Path) -> None:
    pair = CheckpointPair(
        folder / "before",
        folder / "after",
        [folder / "sums.jsonl"],
        max_new_tokens=NEW_TOKENS,
        store=Store(folder / "store"),
    )
    found = Diagnosis(pair)
    assert found.directions is None
    assert {*found.overlap["a"]} | {*found.overlap["b"]} == {"edited by after", "route of sums"}
    assert {*found.returns()["role"]} == {"returned"}
    assert not any("undoes" in line for line in say.in_short(found))


def test_nothing_is_computed_twice_and_another_code_path_finds_it(
    found: Diagnosis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.returns(), found.damage

    def fail(*_: object) -> None:
        raise AssertionError("was computed again")

    for name in ("fisher_diagonal", "ggn_vp", "divergences"):
        monkeypatch.setattr(layerwise_curvature.LayerwiseCurvature, name, fail)
    again = Diagnosis(pair_of(folder, Store(folder / "store")))
    pd.testing.assert_frame_equal(again.damage, found.damage)
    pd.testing.assert_frame_equal(again.returns(), found.returns())
    assert again.pair.fisher_diagonal().names == sorted(again.pair.decoder.names)


def test_what_does_not_fit_together_is_said_before_anything_is_computed(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="not of one model"):
        shutil.copytree(folder / "after", tmp_path / "other")
        models.tiny_model(load_profile("smoke", "layers=1"), models.tiny_tokenizer(), 0).save_pretrained(
            tmp_path / "other"
        )
        pair_of(folder, store, after=tmp_path / "other")
    with pytest.raises(ValueError, match="the same weights"):
        pair_of(folder, store, after=folder / "before")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pair_of(folder, store, base=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="files of different names"):
        files = [folder / "sums.jsonl", folder / "sums.jsonl"]
        CheckpointPair(folder / "before", folder / "after", files, store=store)
    with pytest.raises(ValueError, match="at least one file of prompts"):
        CheckpointPair(folder / "before", folder / "after", [], store=store)
    assert not store.root.exists()


def test_the_report_is_one_page_that_loads_nothing_beside_tidy_files(found: Diagnosis, tmp_path: Path) -> None:
    page = diagnosis_report.write(found, tmp_path / "out")
    text = page.read_text()
    assert "http" not in text.replace('lang="en"', "") and "<script" not in text and "src=" not in text
    for line in say.in_short(found):
        assert html.escape(line) in text
    names = {"damage", "modules", "rollback", "edits", "unchanged", "neurons", "overlap", "directions"}
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} == names
    damage = pd.read_csv(tmp_path / "out" / "damage.csv")
    np.testing.assert_allclose(damage["actual"], found.damage["actual"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["in_short"] == say.in_short(found) and summary["parameters"] == found.pair.parameters


def test_the_map_has_the_share_of_every_module_in_every_layer(found: Diagnosis) -> None:
    shares = say.heat(found)
    assert [*shares.columns] == [0, 1]
    own = found.modules[(found.modules["prompts"] == "sums") & found.modules["layer"].notna()]
    assert float(np.nansum(shares.to_numpy())) == pytest.approx(own["share"].sum())
    text = diagnosis_report.heat_map(shares)
    assert (text.count("<td") == shares.size and "rgba(179,38,30,1.00)" in text) or "rgba(11,87,208,1.00)" in text


def test_the_commands_diagnose_and_repair(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSDOMAIN_STORE", str(folder / "store"))  # where all is computed already
    given = ["--before", str(folder / "before"), "--after", str(folder / "after"), "--max-new-tokens", str(NEW_TOKENS)]
    for name in ("sums", "differences"):
        given += ["--prompts", str(folder / f"{name}.jsonl")]
    shown = CliRunner().invoke(
        app, ["diagnose", *given, "--base", str(folder / "base"), "--out", str(tmp_path / "out")]
    )
    assert shown.exit_code == 0, shown.output
    assert "parameters: at most about" in shown.output and "Rollback candidates" in shown.output
    assert (tmp_path / "out" / "report.html").as_uri() in shown.output.replace("\n", "")
    made = CliRunner().invoke(app, ["rollback", *given, "--keep", "5%", "--out", str(tmp_path / "repaired")])
    assert made.exit_code == 0, made.output
    assert (
        "parameters taken back." in made.output and "Taking back 5 % of the parameters by F·δ² returns" in made.output
    )
    AutoModelForCausalLM.from_pretrained(tmp_path / "repaired")


def test_more_is_needed_of_a_larger_model_and_less_of_a_smaller_type(found: Diagnosis) -> None:
    small = found.pair.needs()
    decoder, config = Decoder(say.four_billion()), say.four_billion()
    in_bfloat16, in_float32 = (diagnosis_needs.needs(decoder, config, size * 4 * 10**9, 512) for size in (2, 4))
    assert 0 < small.memory < in_bfloat16.memory <= in_float32.memory
    assert in_float32.disk == pytest.approx(4 * 4.02e9 / 2**30, rel=0.01)


def test_what_larger_models_take_is_said_from_what_was_measured() -> None:
    measured = json.loads((paths.root() / "book" / "curvature_at_scale.json").read_text())
    text = say.at_scale(measured)
    assert "<td>Fisher, a piece at a time</td>" in text and "A Qwen3 of 4.0 billion parameters" in text
    fisher = next(row for row in measured["rows"] if row["how"] == "layerwise" and row["work"] == "Fisher")
    assert f"{fisher['seconds']:.0f} s ({fisher['seconds_ratio']:.1f})" in text
