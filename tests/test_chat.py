"""Chat models: questions by the tokenizer's own template, answers after the thoughts."""

from __future__ import annotations

from pathlib import Path

import pytest

import hub_standins
from crossdomain import chat
from crossdomain.models import tiny_tokenizer
from crossdomain.profiles import ProfileError, load_profile


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    hub_standins.tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_question_is_one_turn_of_the_user_and_the_thoughts_are_opened(model: str) -> None:
    assert chat.rendered(model, "What is {prompt}?") == (
        "<|im_start|>user\nWhat is {prompt}?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_a_profile_puts_its_questions_by_the_template_of_its_model(model: str) -> None:
    profile = load_profile("paper", {"model": model})
    assert profile.prompt("Why?") == chat.rendered(model, "Why?")
    assert profile.prompt("Why?", "Because") == chat.rendered(model, "Why?") + "Because"


def test_a_template_needs_a_pretrained_model_and_its_tokenizer_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="chat templates need a pretrained model"):
        load_profile("smoke", "prompt_template=chat")
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no chat template; write one into prompt_template"):
        chat.rendered(str(tmp_path), "Why?")


def test_a_tokenizer_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer of it here.*set model to a local folder"):
        chat.load_tokenizer(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Thoughts.\n</think>\n\nAn answer.\n", "An answer."),
        ("</think>An answer.", "An answer."),
        ("One.</think>Two.</think>Three.", "Three."),
        ("Thoughts without an end.", ""),
        ("Thoughts.</think>", ""),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_thoughts(response: str, said: str) -> None:
    assert chat.answer(response) == said
