"""Notebooks: found, their parameters checked before anything runs, failures told with cell, error and path."""

import json
from pathlib import Path

import pytest

from crossdomain import runner
from crossdomain.profiles import ProfileError
from crossdomain.runner import RunError

NOTEBOOK = """# %% tags=["parameters"]
count: int = 1  # how often
word: str = "x"  # what

# %%
print(word * count)

# %%
# %%
if word == "fail":
    raise RuntimeError("planted fault")
"""
KNOWN = {
    "profile": {"inferred_type_name": "str", "default": '"smoke"'},
    "seeds": {"inferred_type_name": "str", "default": '"0"'},
    "refresh_steps": {"inferred_type_name": "int", "default": "-1"},
    "overrides": {"inferred_type_name": "str", "default": '""'},
}


@pytest.fixture
def notebook(tmp_path: Path) -> str:
    path = tmp_path / "99_planted.py"
    path.write_text(NOTEBOOK)
    return str(path)


def test_notebooks_are_found_by_number_and_name() -> None:
    assert runner.find_notebook("01") == runner.find_notebook("01_staged_training")
    with pytest.raises(RunError, match="expected one of 01_staged_training"):
        runner.find_notebook("77")


def test_a_notebook_runs_with_its_parameters(notebook: str) -> None:
    executed = json.loads(runner.execute(notebook, {"count": 3, "word": "ab"}).read_text())
    outputs = [
        out["text"] for cell in executed["cells"] for out in cell.get("outputs", []) if out.get("name") == "stdout"
    ]
    assert "".join("".join(text) for text in outputs) == "ababab\n"


def test_a_failing_cell_is_named_and_the_partial_notebook_stays(notebook: str) -> None:
    with pytest.raises(RunError, match="planted fault") as failure:
        runner.execute(notebook, {"word": "fail"})
    message = str(failure.value)
    assert 'if word == "fail":' in message
    partial = Path(message.rpartition(": ")[2])
    assert partial.name == "99_planted.partial.ipynb"
    assert "xplanted" not in partial.read_text() and "RuntimeError" in partial.read_text()
    assert not partial.with_name("99_planted.ipynb").exists()


def test_an_unknown_parameter_lists_the_known_ones(notebook: str) -> None:
    with pytest.raises(RunError, match="no parameter 'cuont'; it has count, word"):
        runner.execute(notebook, {"cuont": 2})


def test_a_value_of_the_wrong_type_says_what_is_expected(notebook: str) -> None:
    with pytest.raises(RunError, match="count = 'many': expected int"):
        runner.execute(notebook, {"count": "many"})


def test_settings_of_the_profile_are_gathered_and_checked_before_anything_runs() -> None:
    found = runner.check("01", KNOWN, {"profile": "smoke", "steps.math": 3, "refresh_steps": 2, "generations": 8})
    assert found["refresh_steps"] == 2
    assert found["overrides"] == "steps.math=3 generations=8"
    with pytest.raises(ProfileError, match="batch_size"):
        runner.check("01", KNOWN, {"profile": "smoke", "generations": 5})
    with pytest.raises(ProfileError, match="refresh_steps"):
        runner.check("01", KNOWN, {"profile": "smoke", "refresh_steps": -7})


def test_settings_given_as_mappings_and_lists_survive_the_way_to_the_notebook() -> None:
    found = runner.check("01", KNOWN, {"stages": ["code", "math"], "steps": {"code": 2, "math": 2, "qa": 2, "cw": 2}})
    from crossdomain.profiles import load_profile

    profile = load_profile("smoke", found["overrides"])
    assert profile.stages == ["code", "math"]
    assert profile.steps == {"code": 2, "math": 2, "qa": 2, "cw": 2}


def test_the_executed_notebook_goes_where_its_run_is(runs: Path) -> None:
    path = runner.output_path("01_x", KNOWN, {"profile": "smoke", "seeds": "0 1", "refresh_steps": 4})
    assert path == runs / "smoke+refresh_steps=4" / "seeds-0-1" / "notebooks" / "01_x.ipynb"
