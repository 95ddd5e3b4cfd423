"""Profiles: the files that are shipped, overrides, and what is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from crossdomain import paths
from crossdomain.domains import python_functions
from crossdomain.profiles import Profile, ProfileError, load_profile, parse_overrides

FILES = sorted((Path(__file__).parents[1] / "profiles").glob("*.yaml"))


def copied_profile(directory: Path, lines: str) -> Path:
    """A profile file that extends the smallest one by some lines."""
    (directory / "cpu.yaml").write_text((FILES[0].parent / "cpu.yaml").read_text())
    (directory / "smoke.yaml").write_text((FILES[0].parent / "smoke.yaml").read_text())
    path = directory / "own.yaml"
    path.write_text(f"extends: smoke\n{lines}\n")
    return path


# --- The files ---


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_profile_loads_by_name_and_by_file(path: Path) -> None:
    profile = load_profile(path.stem)
    assert profile.name == profile.label == path.stem
    assert load_profile(path) == load_profile(str(path)) == profile


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_setting_in_a_file_is_explained_on_its_line(path: Path) -> None:
    settings = [line for line in path.read_text().splitlines() if re.match(r"(?!extends:)\w+:", line)]
    assert settings
    assert [line for line in settings if not re.search(r" # \w.*\w", line)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_says_at_its_head_what_it_is_for(path: Path) -> None:
    assert re.match(r"# [A-Z].{20}", path.read_text())


def test_the_file_of_the_study_gives_every_setting() -> None:
    given = set(re.findall(r"^(\w+):", (FILES[0].parent / "cpu.yaml").read_text(), re.MULTILINE))
    assert given == set(Profile.model_fields) - {"name", "overridden"}


def test_a_profile_extends_another_one(tmp_path: Path) -> None:
    profile = load_profile(copied_profile(tmp_path, "batch_size: 16"))
    assert (profile.name, profile.batch_size) == ("own", 16)
    assert profile.hidden_size == load_profile("smoke").hidden_size
    assert profile.temperature == load_profile("cpu").temperature


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_profile("smoke").batch_size = 8  # type: ignore[misc]


# --- Overrides ---


@pytest.mark.parametrize(
    "overrides",
    ["steps.math=50 base_learning_rate=5e-5", {"steps.math": 50, "base_learning_rate": 5e-5}],
    ids=["text", "mapping"],
)
def test_overrides_change_what_they_name_and_nothing_else(overrides: Any) -> None:
    plain, changed = load_profile("smoke"), load_profile("smoke", overrides)
    assert changed.base_learning_rate == 5e-5
    assert changed.steps == {**plain.steps, "math": 50}
    same = set(Profile.model_fields) - {"overridden", "steps", "base_learning_rate"}
    assert changed.subset(*same) == plain.subset(*same)
    assert changed.overridden == {"steps.math": 50, "base_learning_rate": 5e-5}


def test_whole_values_can_be_overridden() -> None:
    assert load_profile("smoke", "stages=math,code refresh=code").stages == ["math", "code"]
    assert load_profile("smoke", "stages=[math,code]").stages == ["math", "code"]
    assert load_profile("smoke", "refresh_learning_rate=null").refresh_learning_rate is None
    assert load_profile("smoke", {"steps": {"code": 1, "math": 2, "qa": 3, "cw": 4}}).steps["qa"] == 3


@pytest.mark.parametrize(
    ("text", "value"), [("5e-5", 5e-5), ("1E3", 1000.0), ("5.0e-5", 5e-5), ("7", 7), ("tiny", "tiny"), ("null", None)]
)
def test_override_text_is_read_as_the_value_it_looks_like(text: str, value: Any) -> None:
    (parsed,) = parse_overrides(f"key={text}").values()
    assert parsed == value
    assert type(parsed) is type(value)


def test_no_overrides() -> None:
    assert (
        load_profile("smoke", "") == load_profile("smoke", {}) == load_profile("smoke", None) == load_profile("smoke")
    )


# --- Faults ---


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        pytest.param("batchsize=8", ["batchsize", "8", "batch_size"], id="unknown key"),
        pytest.param("quiz=red", ["quiz", "red", "batch_size", "temperature"], id="unlike any key"),
        pytest.param("name=other", ["name", "other", "no profile setting"], id="not a setting"),
        pytest.param("steps.maths=50", ["steps", "'maths'", "code, math, qa, cw"], id="unknown domain of a mapping"),
        pytest.param("base_batch.poetry=1", ["base_batch", "'poetry'", "code, math, qa, cw"], id="unknown domain"),
        pytest.param("label_noise.poetry=0.5", ["label_noise", "'poetry'", "code, math"], id="unknown noisy domain"),
        pytest.param("batch_size.math=8", ["batch_size.math", "batch_size=8"], id="mapping expected by mistake"),
        pytest.param("hub.train_prompts=8", ["hub.train_prompts", "hub is null in this profile"], id="no hub"),
        pytest.param("model=tiny hub=8", ["hub", "8", "dictionary"], id="hub is no mapping"),
        pytest.param("batch_size=lots", ["batch_size", "'lots'", "integer"], id="wrong type"),
        pytest.param("batch_size=2.5", ["batch_size", "2.5", "integer"], id="fraction"),
        pytest.param("steps=5", ["steps", "5", "dictionary"], id="one value for all domains"),
        pytest.param("stages=5", ["stages", "5", "list"], id="no list"),
        pytest.param("steps.math=0", ["steps.math", "0", "greater than or equal to 1"], id="no steps"),
        pytest.param("learning_rate.math=-1e-4", ["learning_rate.math", "-0.0001", "greater than 0"], id="negative"),
        pytest.param("learning_rate.math=nan", ["learning_rate.math", "nan", "finite number"], id="not a number"),
        pytest.param({"temperature": math.inf}, ["temperature", "inf", "finite number"], id="infinite"),
        pytest.param("base_learning_rate=3", ["base_learning_rate", "3", "less than 1"], id="too large"),
        pytest.param("label_noise.math=2", ["label_noise.math", "2", "less than or equal to 1"], id="share above 1"),
        pytest.param("generations=1", ["generations", "1", "greater than or equal to 2"], id="a group of one"),
        pytest.param("precision=fp8", ["precision", "'fp8'", "'float32'", "'bf16-autocast'"], id="not a choice"),
        pytest.param("scale=huge", ["scale", "'huge'", "'toy'", "'paper'"], id="unknown scale"),
        pytest.param("batch_size=30", ["batch_size", "30", "multiple of 4"], id="batch not divisible"),
        pytest.param("stages=", ["stages"], id="no stage"),
        pytest.param("stages=code,poetry", ["stages", "'poetry'", "code, math, qa, cw"], id="stage without a domain"),
        pytest.param("stages=code,cw", ["refresh", "'math'", "code, cw"], id="refresh is not a stage"),
        pytest.param("refresh=poetry", ["refresh", "'poetry'", "code, math, qa, cw"], id="refresh without a domain"),
        pytest.param(
            {"domains.poem": "writing", "stages": "code,poem,math"},
            ["steps", "'poem'", "steps.poem"],
            id="no steps given",
        ),
        pytest.param(
            "domains.math=openr1_math", ["'openr1_math'", "settings of hub", "paper.yaml"], id="data without hub"
        ),
        pytest.param("prompt_template=chat", ["model", "pretrained"], id="chat template of the tiny model"),
        pytest.param("microbatch=5", ["batch_size", "microbatch=5", "multiple of 5"], id="passes not divisible"),
        pytest.param("domains.math=maths", ["domains", "'maths'", "arithmetic, programs"], id="unknown built-in"),
        pytest.param("domains.Math=arithmetic", ["domains", "Math", "lower-case"], id="name that cannot be read"),
        pytest.param(
            "attention_heads=3 key_value_heads=2",
            ["attention_heads", "3", "key_value_heads=2", "multiple"],
            id="heads not divisible",
        ),
        pytest.param(
            "rollback_percents=[1,10] rollback_points=[3]",
            ["rollback_points", "[3.0]", "rollback_percents=[1.0, 10.0]"],
            id="a size that is not measured",
        ),
        pytest.param("rollback_percents=[0]", ["rollback_percents", "0", "greater than 0"], id="a rollback of nothing"),
        pytest.param("rollback_shares=[0.5]", ["rollback_shares", "[0.5]", "must contain 1"], id="no whole rollback"),
        pytest.param("prompt_template=hello", ["prompt_template", "'hello'", "{prompt}"], id="template without prompt"),
        pytest.param(
            {"base_batch": {"math": 0}},
            ["base_batch", "at least one domain needs examples"],
            id="nothing to pre-train on",
        ),
        pytest.param("steps.math", ["'steps.math'", "key=value"], id="no value"),
        pytest.param("stages=[code", ["stages", "[code"], id="value is not YAML"),
    ],
)
def test_a_fault_in_an_override_is_one_line_naming_key_value_and_what_is_allowed(
    overrides: Any, named: list[str]
) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile("smoke", overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        pytest.param("batchsize: 8", ["own", "batchsize", "8", "batch_size"], id="unknown key"),
        pytest.param("batch_size: [8", ["own.yaml", "not valid YAML", "line"], id="invalid YAML"),
        pytest.param("steps:\n  math: many", ["own", "steps.math", "'many'", "integer"], id="wrong nested type"),
        pytest.param("batch_size: null", ["own", "batch_size", "None", "integer"], id="no value"),
    ],
)
def test_a_fault_in_a_file_is_one_line_naming_it(tmp_path: Path, lines: str, named: list[str]) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(copied_profile(tmp_path, lines))
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(ProfileError, match=r"batch_size = 'lots'.*temperature = 0"):
        load_profile("smoke", "batch_size=lots temperature=0")


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("scale: toy\n")
    with pytest.raises(ProfileError, match="batch_size: Field required"):
        load_profile(tmp_path / "own.yaml")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- batch_size\n")
    with pytest.raises(ProfileError, match=r"own\.yaml.*'key: value' lines, found list"):
        load_profile(tmp_path / "own.yaml")


def test_a_missing_profile_names_those_there_are() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'smokey'.*cpu.*smoke"):
        load_profile("smokey")


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: nowhere\n")
    with pytest.raises(ProfileError, match="no profile 'nowhere'"):
        load_profile(tmp_path / "own.yaml")


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("extends: second\n")
    (tmp_path / "second.yaml").write_text("extends: first\n")
    with pytest.raises(ProfileError, match=r"first extends second extends first"):
        load_profile(tmp_path / "first.yaml")


# --- What follows from a profile ---


def test_labels_of_overridden_runs_differ_and_are_safe_file_names(runs: Path) -> None:
    many = " ".join(
        f"{key}=9" for key in ("layers", "hidden_size", "intermediate_size", "head_dim", "base_warmup_steps")
    )
    overrides = [
        *("", "steps.math=50", "steps.math=51", "steps.cw=50", "steps.math=50 steps.cw=50", "learning_rate.math=5e-5"),
        *("model=/folder/model", "model=folder/model", "model=folder_model"),
        *(f"{many} base_max_steps={last}" for last in (1, 2)),
        *(f"{many} test_prompts=5 temperature={last}" for last in (1, 2)),
    ]
    labels = [load_profile("smoke", override).label for override in overrides]
    assert len(set(labels)) == len(labels)
    for label in labels:
        assert re.fullmatch(r"smoke[A-Za-z0-9._=,+-]*", label)
        paths.run(label, [0]).mkdir(parents=True)
    assert sorted(path.name for path in runs.iterdir()) == sorted(labels)


def test_the_order_of_overrides_does_not_matter_to_the_label() -> None:
    assert load_profile("smoke", "layers=1 samples=3").label == load_profile("smoke", "samples=3 layers=1").label


def test_two_seeds_share_a_base_within_their_hundred() -> None:
    profile = load_profile("smoke", "base_seeds=2")
    assert [profile.base_seed(seed) for seed in (0, 1, 2, 3, 4)] == [0, 0, 1, 1, 0]
    assert [profile.base_seed(seed) for seed in (100, 101, 102)] == [100, 100, 101]


def test_template_puts_prompt_and_prefill_in_place() -> None:
    profile = load_profile("smoke", {"prompt_template": "<q>{prompt}</q>{prefill}"})
    assert profile.prompt("1+1=", "1+1 =") == "<q>1+1=</q>1+1 ="
    assert load_profile("smoke").prompt("1+1=") == "1+1="


def test_domains_are_loaded_under_the_names_of_the_run() -> None:
    domains = load_profile("smoke").load_domains()
    assert {name: domain.title for name, domain in domains.items()} == {
        "code": "Code",
        "math": "Math",
        "qa": "QA",
        "cw": "CW",
    }


def test_a_domain_that_cannot_judge_here_says_so_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    load_profile("smoke").check_rewards()
    monkeypatch.setenv("PATH", "")  # no bubblewrap
    python_functions._sandbox.cache_clear()
    profile = load_profile("smoke", {"domains.code": "python_functions"})
    with pytest.raises(
        ProfileError, match=r"domain code: bubblewrap .* is not installed.*domains\.code=expression_values"
    ):
        profile.check_rewards()
    load_profile("smoke", {"domains.code": "expression_values"}).check_rewards()
