"""What every built-in domain keeps to, and how a reader's own domain is found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain.domains import BUILT_IN, Domain, Item, load_domain
from crossdomain.domains.base import shuffled
from crossdomain.domains.categories import Categories
from crossdomain.domains.python_functions import PythonFunctions
from crossdomain.domains.sentences import Sentences
from crossdomain.domains.worded_arithmetic import WordedArithmetic
from crossdomain.domains.writing import Writing
from crossdomain.models import CHARACTERS, check_vocabulary, tiny_tokenizer
from crossdomain.profiles import load_profile

FEWER = {
    "programs": 1_400,
    "worded_arithmetic": 1_400,
    "python_functions": 1_700,
    "expression_values": 2_800,
    "comparisons": 2_800,
    "sentences": 7_800,
}
REAL = {
    "worded_arithmetic",
    "python_functions",
    "expression_values",
    "comparisons",
    "categories",
    "sentences",
}  # for real language models
TINY = [name for name in BUILT_IN if name not in REAL]
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates included


@pytest.fixture(params=BUILT_IN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def domain(name: str, request: pytest.FixtureRequest) -> Domain:
    if name == "python_functions":
        request.getfixturevalue("sandbox")
    return load_domain(name)


def splits(domain: Domain) -> list[str]:
    return ["train", "dev", "test", *domain.extra_tests]


def checksum(domain: Domain) -> str:
    texts = [repr(list(domain.items(split))) for split in splits(domain)] + [repr(list(domain.pretraining_items()))]
    return hashlib.sha256("".join(texts).encode()).hexdigest()


@pytest.fixture(scope="session")
def checksums_of_another_process() -> dict[str, str]:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_base import *\n"
        "for name in BUILT_IN: print(name, checksum(load_domain(name)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split() for line in done.stdout.splitlines())


def right_response(domain: Domain, item: Item) -> str:
    """A response that is fully rewarded; of several, one of the longest."""
    if isinstance(domain, Writing):
        keyword, rhyme = item.target.split(",")
        first, second, third = [consonant for consonant in "bdfg" if consonant != keyword[0]][:3]
        return f"{keyword} {first}abab {second}abab {third}ab{rhyme}"
    if isinstance(domain, WordedArithmetic | Categories):
        return f" {item.target}\n"
    if isinstance(domain, PythonFunctions):
        return f" {item.target}[2][{json.loads(item.target)[1]} + 1]\n"
    if isinstance(domain, Sentences):
        return f" was seen by us near that {item.target.split(',')[1]}."
    return domain.demonstration(item, np.random.default_rng(0))


def test_items_are_the_same_in_another_process(
    name: str, domain: Domain, checksums_of_another_process: dict[str, str]
) -> None:
    assert checksum(domain) == checksums_of_another_process[name]


def test_no_prompt_is_in_two_splits_or_twice_in_one(domain: Domain) -> None:
    prompts = [item.prompt for split in splits(domain) for item in domain.items(split)]
    assert len(prompts) == len(set(prompts))


def test_pretraining_never_shows_a_prompt_that_is_held_out(domain: Domain) -> None:
    shown = {item.prompt for item in domain.pretraining_items()}
    held_out = {item.prompt for split in splits(domain) if split != "train" for item in domain.items(split)}
    assert shown and not shown & held_out


def test_there_are_thousands_of_items(name: str, domain: Domain) -> None:
    counts = {split: len(domain.items(split)) for split in ("train", "dev", "test")}
    assert sum(counts.values()) >= FEWER.get(name, 12_000)
    assert counts["train"] > counts["test"] > counts["dev"] >= 100


def test_an_unknown_split_is_a_key_error(domain: Domain) -> None:
    with pytest.raises(KeyError, match="exam"):
        domain.items("exam")


@pytest.mark.parametrize("name", TINY, indirect=True)
def test_the_tiny_tokenizer_spells_every_item(name: str, domain: Domain) -> None:
    check_vocabulary(name, domain, tiny_tokenizer())
    rng = np.random.default_rng(0)
    items = [item for split in splits(domain) for item in domain.items(split)] + [*domain.pretraining_items()]
    texts = [item.prompt for item in items] + [domain.demonstration(item, rng) for item in items]
    assert set("".join(texts)) <= set(CHARACTERS)


def test_right_responses_get_the_full_reward(domain: Domain) -> None:
    items = [item for split in splits(domain) for item in domain.items(split)]
    if isinstance(domain, PythonFunctions):
        items = items[::30]  # each runs a program
    responses = [right_response(domain, item) for item in items]
    rewards = domain.reward([item.prompt for item in items], responses, [item.target for item in items])
    assert rewards == [1.0] * len(items)


@pytest.mark.parametrize("name", TINY, indirect=True)
def test_the_longest_right_response_and_its_end_fit(domain: Domain) -> None:
    tokenizer = tiny_tokenizer()
    items = [item for split in splits(domain) for item in domain.items(split)]
    longest = max((right_response(domain, item).strip() for item in items), key=len)
    assert len(tokenizer(longest, add_special_tokens=False)["input_ids"]) + 1 <= domain.max_new_tokens


def test_reward_has_the_signature_trl_calls(domain: Domain) -> None:
    items = domain.items("dev")[:3]
    rewards = domain.reward(
        prompts=[item.prompt for item in items],
        completions=[right_response(domain, items[0]), "?", right_response(domain, items[2])],
        target=[item.target for item in items],
        trainer_state=None,
        log_metric=print,
    )
    assert rewards == [1.0, 0.0, 1.0]


def test_reward_refuses_lists_of_different_length(domain: Domain) -> None:
    with pytest.raises(ValueError, match="zip"):
        domain.reward(prompts=["", ""], completions=["", ""], target=[domain.items("dev")[0].target])


@pytest.mark.parametrize(
    "name", [name for name in BUILT_IN if name != "python_functions"]
)  # its own test runs programs
@given(response=ANY_TEXT, index=st.integers(0, 99))
def test_any_text_gets_a_score(name: str, response: str, index: int) -> None:
    domain = load_domain(name)
    score = domain.score(response, domain.items("dev")[index].target)
    assert isinstance(score, float)
    assert 0 <= score <= 1


@pytest.mark.parametrize("response", ["", " ", "\n", "\0", "9" * 100_000, "bad " * 10_000])
def test_awkward_text_gets_no_reward(domain: Domain, response: str) -> None:
    assert domain.score(response, domain.items("dev")[0].target) == 0


def test_render_shows_response_and_verdict_on_one_line(domain: Domain) -> None:
    item = domain.items("dev")[0]
    right, wrong = domain.render(item, right_response(domain, item)), domain.render(item, "zzz")
    assert "zzz" in wrong
    assert right != wrong
    assert "\n" not in right + wrong


def test_shuffled_depends_on_the_name_alone() -> None:
    assert shuffled(range(50), "a") == shuffled(range(50), "a")
    assert shuffled(range(50), "a") != shuffled(range(50), "b")
    assert sorted(shuffled(range(50), "a")) == [*range(50)]


OWN = """
from crossdomain.domains import Domain, Item

class Echo(Domain):
    title = "Echo"
    max_new_tokens = 3

    def items(self, split):
        return [Item(split, split, prefill="so ")]

    def score(self, response, target):
        return float(response == target)

class Unfinished(Domain):
    title = "Unfinished"
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "echo.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_package.echo"


def test_a_domain_of_ones_own_is_found_by_module_and_class(own_module: str) -> None:
    domain = load_domain(f"{own_module}:Echo")
    assert domain.reward(["ab"], ["ab"], ["ab"]) == [1.0]
    assert domain.pretraining_items() == domain.items("train")
    assert domain.extra_tests == ()
    assert domain.answer(domain.items("dev")[0]) is None
    assert domain.render(domain.items("test")[0], "xy") == "test so → xy   (reward 0)"
    with pytest.raises(NotImplementedError, match=r"Echo.*demonstration"):
        domain.demonstration(domain.items("train")[0], np.random.default_rng(0))


def test_a_profile_names_a_domain_of_ones_own(own_module: str) -> None:
    profile = load_profile("smoke", {"domains.cw": f"{own_module}:Echo"})
    assert profile.load_domains()["cw"].title == "Echo"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("aritmetic", ["aritmetic", *BUILT_IN, "package.module:Class"]),
        ("", ["''", *BUILT_IN]),
        ("no.such.module:Thing", ["no.such.module:Thing", "package.module:Class"]),
        ("crossdomain.domains.arithmetic:Aritmetic", ["Aritmetic", "package.module:Class"]),
        ("crossdomain.domains:", ["crossdomain.domains:", "package.module:Class"]),
        (":Thing", [":Thing", "package.module:Class"]),
        (".relative:Thing", [".relative:Thing", "package.module:Class"]),
        ("crossdomain.domains:Item", ["crossdomain.domains:Item", "subclass"]),
        ("crossdomain.domains:load_domain", ["load_domain", "subclass"]),
        ("own_package.echo:Unfinished", ["own_package.echo:Unfinished", "items", "score", "max_new_tokens"]),
    ],
)
def test_a_wrong_domain_is_one_clear_error(own_module: str, path: str, expected: Sequence[str]) -> None:
    with pytest.raises(ValueError) as caught:
        load_domain(path)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in expected if part not in message] == []
