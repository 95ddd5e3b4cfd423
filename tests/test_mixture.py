"""Mixtures of domains: what their prompts and rewards are, and a stage that is trained on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain import evaluation
from crossdomain.domains import Domain, Item
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.lineage import Lineage
from crossdomain.mixture import Mixture, Rotation, Shares, prompt_rotation, prompt_shares, train_mixture, untagged
from crossdomain.profiles import Profile, load_profile
from crossdomain.store import Store
from crossdomain.training import prompt_order

PROFILE = load_profile("smoke")
DOMAINS = PROFILE.load_domains()
GROUPS = PROFILE.batch_size // PROFILE.generations
ROWS = {name: {item.prompt: item.target for item in domain.items("train")} for name, domain in DOMAINS.items()}

MIXED = {item.prompt: item for item in Mixture(DOMAINS).items("train")}


def by_step(targets: Sequence[str]) -> list[Counter[str]]:
    """How many prompts of each domain every step has."""
    names = [untagged(target)[0] for target in targets]
    return [Counter(names[start : start + GROUPS]) for start in range(0, len(names), GROUPS)]


# --- The domain ---


@given(st.sampled_from(sorted(DOMAINS)), st.integers(0, 400), st.text(max_size=12))
def test_a_response_is_scored_as_the_targets_own_domain_scores_it(name: str, index: int, other: str) -> None:
    mixture, domain, own = Mixture(DOMAINS), DOMAINS[name], DOMAINS[name].items("train")[index]
    item = MIXED[own.prompt]
    assert untagged(item.target) == (name, own.target)
    right = domain.answer(own)
    assert mixture.answer(item) == right
    for response in (other, own.target, right or "pem gud sol tag"):
        assert mixture.score(response, item.target) == domain.score(response, own.target)


def test_a_target_that_holds_the_tags_end_is_kept_whole() -> None:
    assert untagged("qa:a:b") == ("qa", "a:b")


def test_a_mixture_is_as_long_as_its_longest_domain_and_has_all_their_items() -> None:
    mixture = Mixture({name: DOMAINS[name] for name in ("qa", "cw")})
    assert mixture.max_new_tokens == DOMAINS["cw"].max_new_tokens > DOMAINS["qa"].max_new_tokens
    for split in ("train", "dev", "test"):
        assert len(mixture.items(split)) == sum(len(part.items(split)) for part in mixture.parts.values())


class OneLine(Arithmetic):
    stop = ("\n",)


class OneSentence(Arithmetic):
    stop = (".", "\n")


class EndsAtOne(Arithmetic):
    stop = ("1",)


def test_a_mixtures_responses_end_with_what_ends_any_of_its_domains() -> None:
    assert Mixture({"math": Arithmetic(), "line": OneLine(), "sentence": OneSentence()}).stop == ("\n", ".")
    with pytest.raises(ValueError, match="at least one domain"):
        Mixture({})


def test_domains_are_not_mixed_if_one_would_cut_the_answers_of_another() -> None:
    with pytest.raises(ValueError, match=r"answer '\d*1\d*' of domain 'line' would be cut .* any of \('\\n', '1'\)"):
        Mixture({"line": OneLine(), "one": EndsAtOne()})


# --- Prompts ---

WEIGHTS = st.lists(st.integers(0, 7), min_size=4, max_size=4).filter(any)


@given(WEIGHTS, st.integers(1, 12), st.integers(0, 3))
def test_no_domain_is_ever_ahead_of_its_share_by_a_prompt(weights: list[int], steps: int, seed: int) -> None:
    shares = {name: weight / sum(weights) for name, weight in zip(DOMAINS, weights, strict=True)}
    targets = prompt_shares(PROFILE, DOMAINS, shares, steps, seed)["target"][:]
    assert len(targets) == steps * GROUPS
    names = [untagged(target)[0] for target in targets]
    for end in range(1, len(names) + 1):
        for name, share in shares.items():
            assert names[:end].count(name) < share * end + 1
    assert {name for name, share in shares.items() if share == 0}.isdisjoint(names)


@given(st.lists(st.sampled_from(sorted(DOMAINS)), min_size=GROUPS, max_size=GROUPS))
def test_shares_that_are_whole_prompts_are_exact_in_every_step(step: list[str]) -> None:
    shares = {name: step.count(name) / GROUPS for name in DOMAINS}
    assert by_step(prompt_shares(PROFILE, DOMAINS, shares, 5, 0)["target"][:]) == [Counter(step)] * 5


@given(st.permutations(sorted(DOMAINS)), st.integers(1, 4), st.integers(1, 3), st.integers(1, 14))
def test_every_step_of_a_rotation_is_on_one_domain_in_its_turn(
    order: list[str], size: int, every: int, steps: int
) -> None:
    domains = {name: DOMAINS[name] for name in order[:size]}
    found = by_step(prompt_rotation(PROFILE, domains, steps, 0, every)["target"][:])
    assert found == [Counter({order[step // every % size]: GROUPS}) for step in range(steps)]


@pytest.mark.parametrize("mixed", [True, False])
def test_each_domains_prompts_are_training_prompts_in_the_order_of_its_own_stage(mixed: bool) -> None:
    even = dict.fromkeys(DOMAINS, 0.25)
    make = prompt_shares(PROFILE, DOMAINS, even, 8, 3) if mixed else prompt_rotation(PROFILE, DOMAINS, 8, 3)
    for name, domain in DOMAINS.items():
        used = [row for row in make.to_list() if untagged(row["target"])[0] == name]
        own = prompt_order(PROFILE, domain, 2, 3).to_list()
        assert [(row["prompt"], untagged(row["target"])[1]) for row in used] == [
            (row["prompt"], row["target"]) for row in own
        ]
        assert all(ROWS[name][row["prompt"]] == untagged(row["target"])[1] for row in used)


def test_a_longer_stage_begins_with_the_same_prompts() -> None:
    shares = {"math": 0.9, "qa": 0.1}
    short, long = (prompt_shares(PROFILE, DOMAINS, shares, steps, 0)["prompt"][:] for steps in (3, 9))
    assert long[: len(short)] == short


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"math": 0.5, "law": 0.5}, "no domain law, expected some of code, math, qa, cw"),
        ({"math": 0.5, "qa": 0.4}, "sum to 1"),
        ({"math": 1.5, "qa": -0.5}, "0 or more"),
        ({}, "sum to 1"),
    ],
)
def test_shares_that_are_none_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prompt_shares(PROFILE, DOMAINS, shares, 2, 0)


def test_a_rotation_needs_a_domain_and_a_step() -> None:
    with pytest.raises(ValueError, match="at least one domain and step"):
        prompt_rotation(PROFILE, {}, 2, 0)
    with pytest.raises(ValueError, match="every = 0"):
        prompt_rotation(PROFILE, DOMAINS, 2, 0, every=0)


# --- A trained stage ---


@pytest.fixture
def small(smoke: Profile, store_with_base: Store) -> Lineage:
    return Lineage(smoke, 0, store_with_base)


def test_a_trained_mixture_is_read_again_and_scored_like_any_checkpoint(small: Lineage) -> None:
    schedule = Rotation(("qa", "cw"))
    made = train_mixture(small, "alternating", schedule, parent="base", steps=2)
    assert (made.name, small.checkpoint("base+alternating")) == ("base+alternating", made)
    assert made.training_log()["step"].tolist() == [1, 2]
    assert made.training_log()["learning_rate"].iloc[-1] == small.profile.learning_rate["math"]  # the refreshed one's
    scores = evaluation.scores(small, made.name)
    assert set(scores["domain"]) == set(small.domains)
    again = train_mixture(Lineage(small.profile, 0, small.store), "alternating", schedule, parent="base", steps=2)
    assert again.key == made.key
    assert again.artifact.manifest["made"] == made.artifact.manifest["made"]


def test_the_key_depends_on_all_that_determines_the_weights(small: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = small.checkpoint("base")
    keys: list[str] = []

    def key(name: str, inputs: dict[str, object], make: object) -> object:
        keys.append(Store.key(name, inputs))
        return base.artifact

    monkeypatch.setattr(small.store, "get", key)
    changes = [
        {},
        {"schedule": Rotation(("cw", "qa"))},
        {"schedule": Rotation(("qa", "cw"), every=2)},
        {"schedule": Shares.even(("qa", "cw"))},
        {"schedule": Shares((("qa", 0.75), ("cw", 0.25)))},
        {"steps": 3},
        {"learning_rate": 1e-5},
        {"snapshot_every": 7},
    ]
    for change in (*changes, *changes):
        options = {"schedule": Rotation(("qa", "cw")), "parent": "base", "steps": 2, **change}
        train_mixture(small, "x", **options)  # type: ignore[arg-type]
    assert keys[: len(changes)] == keys[len(changes) :]
    assert len({*keys}) == len(changes)


def test_a_stage_on_domains_that_are_not_the_runs_own_is_refused_before_it_is_trained(small: Lineage) -> None:
    for domains in (("qa", "law"), ("qa", "qa")):
        with pytest.raises(ValueError, match="expected different domains of code, math, qa, cw, got qa, "):
            train_mixture(small, "x", Rotation(domains), parent="base", steps=2)


def test_a_checkpoint_with_the_name_of_a_stage_is_not_adopted(small: Lineage) -> None:
    made = train_mixture(small, "mixed", Shares.even(("qa", "cw")), parent="base", steps=1)
    with pytest.raises(ValueError, match="'code-math': that names a stage"):
        small.adopt(made.__class__("code-math", made.artifact))


class Unspellable(Domain):
    title = "Unspellable"
    max_new_tokens = 2

    def items(self, split: str) -> list[Item]:
        return [Item(f"{split}é", "a")]

    def score(self, response: str, target: str) -> float:
        return 0.0


def test_a_domain_that_the_policy_cannot_read_is_refused(small: Lineage) -> None:
    small.domains["qa"] = Unspellable()
    with pytest.raises(ValueError, match=r"'qa'.*'é'"):
        train_mixture(small, "x", Rotation(("qa",)), parent="base", steps=1)
