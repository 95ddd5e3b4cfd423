"""Chat models: how a question is put to one, and where the answer begins in what it says."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_THINKING = "</think>"


@cache
def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: a local folder, or its name on the Hugging Face hub.

    Raises:
        FileNotFoundError: there is none; the message says what was looked for.
    """
    from transformers import AutoTokenizer  # here, since importing it takes seconds that reading a profile need not

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"model {model!r}: no tokenizer of it here, and none could be fetched ({reason}); set model to a local folder "
            "of it, or run where the Hugging Face hub can be reached"
        ) from error
    return tokenizer


def rendered(model: str, question: str) -> str:
    """A question as one turn of the user, by the chat template of the model's tokenizer, up to where the model begins.

    A thinking model's template may open its thoughts, as that of Qwen3-4B-Thinking-2507 does with `<think>`.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    tokenizer = load_tokenizer(model)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"model {model!r}: its tokenizer has no chat template; write one into prompt_template, with {{prompt}} in it"
        )
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def answer(response: str) -> str:
    r"""What a thinking model says after its thoughts; nothing where they did not end.

    >>> answer("Two and two...</think>\n\nFour.")
    'Four.'
    >>> answer("Two and two...")
    ''
    """
    _, ended, said = response.rpartition(END_OF_THINKING)
    return said.strip() if ended else ""
