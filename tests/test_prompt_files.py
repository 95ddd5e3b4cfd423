"""Files of prompts, and answers to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from crossdomain import paths, prompt_files
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.profiles import load_profile
from crossdomain.prompt_files import Answers, PromptError, Prompts

TEMPLATE = (
    "{% for m in messages %}({{ m['role'] }}){{ m['content'] }}{% endfor %}{% if add_generation_prompt %}(a){% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()


def write(path: Path, *prompts: object) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def test_a_file_gives_its_first_prompts_and_its_name(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    file = write(tmp_path / "sums.jsonl", *(f"{i}+{i}=" for i in range(9)))
    file.write_text("\n" + file.read_text())  # blank lines are skipped
    found = prompt_files.read(file, tokenizer, limit=5, longest=99)
    assert found == Prompts("sums", ["0+0=", "1+1=", "2+2=", "3+3=", "4+4="])


def test_messages_become_the_text_of_the_chat_template(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.chat_template = TEMPLATE
    question, begun = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    file = write(tmp_path / "chat.jsonl", [question], [question, begun], "plain", [question])
    found = prompt_files.read(file, tokenizer, limit=9, longest=99)
    assert found.texts == ["(user)a(a)", "(user)a(assistant)b", "plain", "(user)a(a)"]


def test_a_template_that_begins_a_sequence_does_not_begin_it_twice(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.chat_template = "<bos>{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert isinstance(tokenizer.backend_tokenizer.post_processor, processors.TemplateProcessing)
    file = write(tmp_path / "chat.jsonl", *([{"role": "user", "content": "a"}],) * 4)
    found = prompt_files.read(file, tokenizer, limit=9, longest=99)
    assert tokenizer(found.texts[0])["input_ids"].count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"bad\.jsonl, line 2 is not JSON .*expected \{\"prompt\": \"a text\"\}"),
        ('"text"', r"line 2: expected"),
        ('{"text": "a"}', r"line 2: expected"),
        ('{"prompt": ""}', r"line 2: expected"),
        ('{"prompt": [{"role": "user"}]}', r"line 2: expected"),
        ('{"prompt": [{"role": "user", "content": "a"}]}', "no chat template: write prompts as texts"),
        ('{"prompt": "1234567890"}', "line 2: 11 tokens, and the model reads 10"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"prompt": "1"}}\n{line}\n')
    with pytest.raises(PromptError, match=said):
        prompt_files.read(tmp_path / "bad.jsonl", tokenizer, limit=9, longest=10)


def test_too_few_prompts_and_missing_files_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="3 prompts, expected at least 4"):
        prompt_files.read(write(tmp_path / "few.jsonl", "1", "2", "3"), tokenizer, limit=9, longest=9)
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file; expected JSON Lines"):
        prompt_files.read(tmp_path / "none.jsonl", tokenizer, limit=9, longest=9)


def test_answers_are_the_models_own_end_where_it_ends_them_and_leave_the_random_state(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = tiny_model(load_profile("smoke"), tokenizer, 0).eval()
    model.generation_config.eos_token_id = [
        tokenizer.eos_token_id,
        3,
        4,
        5,
        6,
        7,
    ]  # as models with several ends have it
    prompts = Prompts("x", [f"{i}+{i}=" for i in range(20)])
    state = torch.get_rng_state()
    found = prompt_files.answer(model, tokenizer, prompts, max_new_tokens=12)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == prompt_files.answer(model, tokenizer, prompts, max_new_tokens=12)
    assert found.prompts == tokenizer(prompts.texts)["input_ids"]
    ends = {tokenizer.eos_token_id, 3, 4, 5, 6, 7}
    assert all(not ends & {*ids[:-1]} and (ids[-1] in ends or len(ids) == 12) for ids in found.responses)
    assert any(ids[-1] in ends for ids in found.responses)


def test_halves_share_no_prompt_and_leave_none_out() -> None:
    answers = Answers([[1], [2], [3], [4], [5]], [[6], [7], [8], [9], [10]])
    first, second = answers.half(0), answers.half(1)
    assert (first.prompts, second.prompts) == ([[1], [3], [5]], [[2], [4]])
    assert (first.responses, second.responses) == ([[6], [8], [10]], [[7], [9]])


def test_the_everyday_prompts_of_the_project_are_chat_messages(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    found = prompt_files.read(paths.root() / "prompts" / "everyday.jsonl", tokenizer, limit=999, longest=99)
    assert len(found.texts) == 64 and {*found.texts} == {"user"}
