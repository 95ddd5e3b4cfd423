"""Domains of public data sets: loading in the sets' formats, splits, strata, and rows that are malformed or of no use."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hub_standins
from crossdomain.domains import HUB, Domain, Item, load_domain
from crossdomain.domains.hub import DataError, DataSet, HubSettings, Task, in_proportion, load

SETTINGS: dict[str, Any] = {
    "folder": None,
    "train_prompts": 16,
    "held_out_prompts": 8,
    "prompt_tokens": 400,
    "completion_tokens": 12,
    "writing_reward": "similarity",
    "judge_url": "http://localhost:1/v1",
    "judge_model": "judge",
}
MATH, AIME, QA = "open-r1/OpenR1-Math-220k", "math-ai/aime25", "m-a-p/SuperGPQA"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    hub_standins.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hub_standins.mirror(tmp_path / "hub")


def domain(name: str, folder: Path, model: str, **changes: Any) -> Domain:
    return load_domain(name, HubSettings(**{**SETTINGS, "folder": str(folder), **changes}), model)


def questions(domain: Domain, *splits: str) -> list[str]:
    return [item.prompt for split in splits for item in domain.items(split)]


# --- Loading and splits ---


@pytest.mark.parametrize("name", HUB)
def test_every_domain_reads_its_data_sets_and_has_splits_of_the_sizes_asked_for(
    name: str, folder: Path, model: str
) -> None:
    found = domain(name, folder, model)
    splits = ["train", "dev", "test", *found.extra_tests]
    assert {split: len(found.items(split)) for split in splits} == dict.fromkeys(splits, 8) | {"train": 16}
    assert found.max_new_tokens == 12
    assert all(item.prompt and item.target and found.answer(item) is None for item in found.items("train"))


@pytest.mark.parametrize("name", HUB)
def test_no_two_splits_share_a_question_and_a_second_reading_gives_the_same_items(
    name: str, folder: Path, model: str
) -> None:
    found, again = domain(name, folder, model), domain(name, folder, model)
    splits = ["train", "dev", "test", *found.extra_tests]
    everything = questions(found, *splits)
    assert len(set(everything)) == len(everything)
    assert [again.items(split) for split in splits] == [found.items(split) for split in splits]


def test_held_out_items_do_not_depend_on_how_many_are_trained_on(folder: Path, model: str) -> None:
    few, many = (domain("supergpqa", folder, model, train_prompts=count) for count in (4, 20))
    assert [few.items(split) for split in ("test", "dev")] == [many.items(split) for split in ("test", "dev")]
    assert few.items("train") == many.items("train")[:4]


def test_math_is_validated_on_aime_and_nothing_else(folder: Path, model: str) -> None:
    found = domain("openr1_math", folder, model, held_out_prompts=30, train_prompts=4)
    assert {prompt.split("\n")[0] for prompt in questions(found, "dev")} == {
        hub_standins.aime_row(i)["problem"] for i in range(30)
    }


def test_a_question_of_the_validation_set_is_never_trained_on(folder: Path, model: str) -> None:
    leaked = hub_standins.aime_row(0)["problem"]
    rows = [hub_standins.math_row(i, problem=f"  {leaked.upper()} " if i < 20 else f"{i}?") for i in range(60)]
    hub_standins.write(folder, MATH, rows, parquet=True)
    found = domain("openr1_math", folder, model, held_out_prompts=30, train_prompts=10)
    assert leaked.casefold() not in "".join(questions(found, "train", "test")).casefold()
    with pytest.raises(DataError, match=r"10 of the 11 prompts of the split 'train'.*20 with a question seen before"):
        domain("openr1_math", folder, model, held_out_prompts=30, train_prompts=11).items("test")


def test_a_download_of_a_repository_is_read_by_its_own_configuration(folder: Path, model: str) -> None:
    place = folder / MATH
    (place / "data").mkdir()
    (place / "train-00000-of-00001.parquet").rename(place / "data" / "train-00000-of-00001.parquet")
    (place / "other").mkdir()
    hub_standins.write(folder, f"{MATH}/other", [hub_standins.math_row(i + 1000) for i in range(40)], parquet=True)
    (place / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n"
    )
    assert len(load(DataSet(MATH, ("problem", "answer")), str(folder))) == 40


def test_only_the_columns_that_are_read_are_kept(folder: Path) -> None:
    assert load(DataSet(MATH, ("problem", "nothing")), str(folder)).column_names == ["problem"]


# --- Strata ---


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    stretch=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_every_stretch_of_the_order_holds_each_stratum_in_proportion(sizes: list[int], stretch: list[float]) -> None:
    tasks = [Task(Item(f"{s}-{i}", ""), (str(s),)) for s, size in enumerate(sizes) for i in range(size)]
    order = in_proportion(tasks, "any name")
    assert sorted(task.item.prompt for task in order) == sorted(task.item.prompt for task in tasks)
    start, end = (round(share * len(order)) for share in stretch)
    counts = Counter(task.stratum[0] for task in order[start:end])
    # Up to a place in the order each stratum has its share to within 1, if the place itself is off by one a stratum.
    for s, size in enumerate(sizes):
        share = (end - start) * size / len(order)
        assert abs(counts[str(s)] - share) <= 2 * (1 + size * len(sizes) / len(order))


def test_training_prompts_are_stratified_by_subfield_and_difficulty(folder: Path, model: str) -> None:
    rows = [hub_standins.qa_row(i) | {"difficulty": "hard" if i % 10 == 0 else "easy"} for i in range(400)]
    hub_standins.write(folder, QA, rows, file="SuperGPQA-all.jsonl")
    found = domain("supergpqa", folder, model, train_prompts=200)
    numbers = [int(prompt.split("number ")[1].split("?")[0]) for prompt in questions(found, "train")]
    counts = Counter((number % 10 == 0, number % 2) for number in numbers)
    assert counts[True, 0] == pytest.approx(20, abs=2)
    assert counts[False, 0] == pytest.approx(80, abs=2)
    assert counts[False, 1] == pytest.approx(100, abs=2)


def test_with_one_stratum_the_order_is_a_shuffle_that_depends_on_the_name() -> None:
    tasks = [Task(Item(str(i), "")) for i in range(50)]
    orders = [[task.item.prompt for task in in_proportion(tasks, name)] for name in ("one", "one", "two")]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=int)


# --- Rows that cannot be used ---


def test_prompts_that_are_too_long_are_left_out(folder: Path, model: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = [hub_standins.math_row(i, problem=f"{i}" + "?" * (400 if i % 2 else 1)) for i in range(40)]
    hub_standins.write(folder, MATH, rows, parquet=True)
    with caplog.at_level(logging.INFO):
        found = domain("openr1_math", folder, model, train_prompts=10)
        assert all(len(prompt) <= 400 for prompt in questions(found, "train", "test"))
    assert "of more than 400 tokens" in caplog.text


MALFORMED = {
    "openr1_math": (
        MATH,
        hub_standins.math_row,
        [{"problem": " "}, {"answer": None}, {"question_type": None, "correctness_math_verify": None}],
    ),
    "code_tests": (
        "Kwai-Klear/KlearReasoner-CodeSub-15K",
        hub_standins.code_row,
        [
            {"prompt": []},
            {"prompt": [{"content": "Hello.", "role": "system"}]},
            {"reward_model": {"ground_truth": "...", "style": "rule"}},
            {"reward_model": {"ground_truth": "[]", "style": "rule"}},
            {"reward_model": {"ground_truth": json.dumps({"inputs": ["1"], "outputs": []}), "style": "rule"}},
            {"reward_model": None},
        ],
    ),
    "supergpqa": (
        QA,
        hub_standins.qa_row,
        [
            {"options": []},
            {"options": None},
            {"answer_letter": "E"},
            {"answer_letter": "AB"},
            {"question": ""},
            {"subfield": None},
        ],
    ),
    "creative_writing": (
        "Crownelius/Creative-Writing-Gemini3Pro-2700x",
        hub_standins.writing_row,
        [{"instruction": None}, {"response": ""}],
    ),
}
EACH = [(name, i) for name, (_, _, faults) in MALFORMED.items() for i in range(len(faults))]


@pytest.mark.parametrize(("name", "fault"), EACH)
def test_a_malformed_row_is_skipped_and_counted(
    name: str, fault: int, folder: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, row, faults = MALFORMED[name]
    for file in (folder / source).iterdir():
        file.unlink()
    rows = [row(1000 + i) for i in range(100)]
    hub_standins.write(folder, source, [*rows[:50], row(7, **faults[fault]), *rows[50:]])
    with caplog.at_level(logging.WARNING):
        domain(name, folder, model).items("train")
    assert f"{source}: skipped 1 of 101 rows, row 50: " in caplog.text


@pytest.mark.parametrize("name", MALFORMED)
def test_more_malformed_rows_than_one_in_a_hundred_are_an_error(name: str, folder: Path, model: str) -> None:
    source, row, faults = MALFORMED[name]
    for file in (folder / source).iterdir():
        file.unlink()
    hub_standins.write(folder, source, [*(row(1000 + i) for i in range(100)), row(1, **faults[0]), row(2, **faults[0])])
    with pytest.raises(DataError, match=rf"{source}: 2 of 102 rows are not of its schema, the first is row 100: "):
        domain(name, folder, model).items("train")


def test_files_of_another_data_set_are_refused_with_the_columns_they_have(folder: Path, model: str) -> None:
    hub_standins.write(folder, QA, [{"prompt": "?", "completion": "!"}], file="SuperGPQA-all.jsonl")
    with pytest.raises(
        DataError, match=r"1 rows with the columns prompt, completion in .*expected some with question, opt"
    ):
        domain("supergpqa", folder, model).items("train")


@pytest.mark.parametrize(
    ("name", "source", "row"),
    [
        ("openr1_math", MATH, hub_standins.math_row(7, question_type="proof")),
        ("openr1_math", MATH, hub_standins.math_row(7, correctness_math_verify=[False, False])),
        ("openr1_math", MATH, hub_standins.math_row(7, correctness_math_verify=None)),
        (
            "code_tests",
            "Kwai-Klear/KlearReasoner-CodeSub-15K",
            hub_standins.code_row(
                7, reward_model={"ground_truth": json.dumps({"functional": "assert f(1) == 2"}), "style": "rule"}
            ),
        ),
        (
            "code_tests",
            "Kwai-Klear/KlearReasoner-CodeSub-15K",
            hub_standins.code_row(
                7, reward_model={"ground_truth": json.dumps({"inputs": [[1]], "outputs": [[2]]}), "style": "rule"}
            ),
        ),
        (
            "code_tests",
            "Kwai-Klear/KlearReasoner-CodeSub-15K",
            hub_standins.code_row(
                7,
                reward_model={"ground_truth": json.dumps({"inputs": ["1" * 9000], "outputs": ["2"]}), "style": "rule"},
            ),
        ),
    ],
)
def test_rows_of_the_schema_that_are_of_no_use_are_left_out_and_no_fault(
    name: str, source: str, row: dict[str, Any], folder: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = hub_standins.math_row if name == "openr1_math" else hub_standins.code_row
    for file in (folder / source).iterdir():
        file.unlink()
    hub_standins.write(folder, source, [*(good(1000 + i) for i in range(40)), row])
    with caplog.at_level(logging.INFO):
        domain(name, folder, model).items("test")
    assert f"{source}: 1 of 41 rows are of no use here" in caplog.text


def test_too_few_prompts_are_an_error_that_says_why_and_what_to_do(folder: Path, model: str) -> None:
    found = domain("supergpqa", folder, model, train_prompts=100)
    with pytest.raises(DataError, match=r"24 of the 100 prompts of the split 'train'; 40 rows.*Set hub\.train_prompts"):
        found.items("test")


def test_a_data_set_that_is_not_in_the_folder_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m-a-p/SuperGPQA: no folder .*hf download m-a-p/SuperGPQA"):
        load(DataSet(QA, ("question",)), str(tmp_path))


def test_a_file_that_is_broken_is_named(folder: Path, model: str) -> None:
    (folder / QA / "SuperGPQA-all.jsonl").write_text('{"question": "Which')
    with pytest.raises(DataError, match=r"m-a-p/SuperGPQA: cannot be read from .*give whole files"):
        domain("supergpqa", folder, model).items("train")


def test_a_domain_without_settings_for_its_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'supergpqa' reads a data set.*profiles/paper\.yaml"):
        load_domain("supergpqa")


def test_what_determines_training_follows_the_items_and_the_longest_response(folder: Path, model: str) -> None:
    def key(**changes: Any) -> Any:
        found: Any = domain("supergpqa", folder, model, **changes)
        return json.dumps(found.determinants(), sort_keys=True)

    assert key() == key(judge_model="another")
    assert len({key(), key(train_prompts=17), key(completion_tokens=13)}) == 3
    before = key()
    rows = [hub_standins.qa_row(i, answer_letter="C") for i in range(40)]
    hub_standins.write(folder, QA, rows, file="SuperGPQA-all.jsonl")
    assert key() != before
