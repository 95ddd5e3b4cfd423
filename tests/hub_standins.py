"""Small local stand-ins for what the profile `paper` needs: data sets in their exact columns, and a tiny thinking Qwen3."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

Row = dict[str, Any]
# As the template of Qwen3-4B-Thinking-2507 does for one turn of a user: it opens the thoughts.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
PROGRAM = "```python\nprint(2 * int(input()))\n```"
SAYINGS = (
    "</think>",
    "\\boxed{4}",
    PROGRAM,
    "Answer: B",
    "A red fox sleeps.",
)  # what the tiny model says, one token each


def math_row(i: int, **changes: Any) -> Row:
    """A row of open-r1/OpenR1-Math-220k: all columns of its configuration `default`."""
    return {
        "problem": f"What is {i} + {4 - i}?",
        "solution": "It is 4.",
        "answer": "4",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": f"00000000-0000-0000-0000-{i:012d}",
        "is_reasoning_complete": [True, True],
        "generations": ["<think>\n</think>\nIt is $\\boxed{4}$.", "<think>\n</think>\n5"],
        "correctness_math_verify": [True, False],
        "correctness_llama": None,
        "finish_reasons": None,
        "correctness_count": 1,
        "messages": [{"content": "What is it?", "role": "user"}, {"content": "4", "role": "assistant"}],
    } | changes


def aime_row(i: int, **changes: Any) -> Row:
    """A row of math-ai/aime25."""
    return {"problem": f"Find the remainder of {1000 + i} by {996 + i}.", "answer": "4", "id": str(i)} | changes


def code_row(i: int, **changes: Any) -> Row:
    """A row of Kwai-Klear/KlearReasoner-CodeSub-15K."""
    truth = {"inputs": ["1\n", f"{i}\n", "5"], "outputs": ["2\n", f"{2 * i}\n", "10"]}
    return {
        "hash": f"{i:032x}",
        "ability": "code",
        "data_source": "coder1_longcot",
        "prompt": [{"content": f"Problem {i}: print twice the number that you read.", "role": "user"}],
        "reward_model": {"ground_truth": json.dumps(truth), "style": "rule"},
    } | changes


def qa_row(i: int, **changes: Any) -> Row:
    """A row of m-a-p/SuperGPQA."""
    return {
        "uuid": f"{i:032x}",
        "question": f"Which letter follows A in alphabet number {i}?",
        "options": ["A", "B", "C", "D"],
        "answer": "B",
        "answer_letter": "B",
        "discipline": "Literature and Arts",
        "field": "Language and Literature",
        "subfield": ("Linguistics and Applied Linguistics", "Philology")[i % 2],
        "difficulty": ("easy", "middle", "hard")[i % 3],
        "is_calculation": False,
    } | changes


def mmlu_pro_row(i: int, **changes: Any) -> Row:
    """A row of TIGER-Lab/MMLU-Pro."""
    return {
        "question_id": i,
        "question": f"Which letter precedes C in alphabet number {i}?",
        "options": ["A", "B", "C"],
        "answer": "B",
        "answer_index": 1,
        "cot_content": "",
        "category": ("other", "history")[i % 2],
        "src": "ori_mmlu-elementary",
    } | changes


def writing_row(i: int, **changes: Any) -> Row:
    """A row of one of the Creative-Writing data sets, in the columns of Creative-Writing-Reasoning-KimiK2.5-600x."""
    return {
        "instruction": f"Write a sentence about fox number {i}.",
        "thought": "A fox...",
        "response": "A red fox sleeps in the snow.",
    } | changes


def write(folder: Path, name: str, rows: Iterable[Mapping[str, Any]], *, parquet: bool = False, file: str = "") -> Path:
    """Rows as a file of a data set in a folder that mirrors the hub."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    if parquet:
        Dataset.from_list([dict(row) for row in rows]).to_parquet(place / (file or "train-00000-of-00001.parquet"))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (place / (file or "train.jsonl")).write_text(text)
    return place


def mirror(folder: Path, count: int = 40) -> Path:
    """All data sets of the profile `paper`, `count` rows each (of AIME25 its 30), each in the format it has on the hub."""
    numbers = range(count)
    write(folder, "open-r1/OpenR1-Math-220k", map(math_row, numbers), parquet=True)
    write(folder, "math-ai/aime25", map(aime_row, range(30)), file="test.jsonl")
    write(folder, "Kwai-Klear/KlearReasoner-CodeSub-15K", map(code_row, numbers), file="train_code_rllm_clean.json")
    write(folder, "m-a-p/SuperGPQA", map(qa_row, numbers), file="SuperGPQA-all.jsonl")
    write(folder, "TIGER-Lab/MMLU-Pro", map(mmlu_pro_row, numbers), parquet=True, file="test-00000-of-00001.parquet")
    kinds = ("Sonnet4.6-800x", "Gemini3Pro-2700x", "Reasoning-KimiK2.5-600x", "Qwen3.5Plus-2000x")
    for k, kind in enumerate(kinds):
        write(folder, f"Crownelius/Creative-Writing-{kind}", map(writing_row, range(k * count, (k + 1) * count)))
    return folder


def tokenizer() -> PreTrainedTokenizerBase:
    """Bytes, Qwen's marks, and `SAYINGS` as one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    made.add_tokens(["<think>", *SAYINGS])  # no special tokens: as with Qwen3, decoding keeps them
    made.chat_template = CHAT_TEMPLATE
    return made


def thinking_model(folder: Path) -> Path:
    """A folder with a random Qwen3 of a few thousand parameters that says nothing but `SAYINGS` and the end."""
    spoken = tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(spoken),
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=spoken.pad_token_id,
        bos_token_id=None,
        eos_token_id=spoken.eos_token_id,
    )
    model = Qwen3ForCausalLM(config)
    said = spoken.convert_tokens_to_ids([*SAYINGS, "<|im_end|>"])
    with torch.no_grad():  # one coordinate that all tokens share, and that only what is said answers to
        model.get_input_embeddings().weight[:, 0] = 5.0
        model.lm_head.weight[:, 0] = -5.0
        model.lm_head.weight[said, 0] = 1.0
    model.save_pretrained(folder)
    spoken.save_pretrained(folder)
    return folder
