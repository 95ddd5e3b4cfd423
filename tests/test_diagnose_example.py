"""Which checkpoints and prompts chapter 9 hands to the diagnosis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from crossdomain import diagnose_example
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.store import Store


@pytest.fixture
def known(base: Checkpoint, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lineage that has the base under every name: nothing is trained."""
    monkeypatch.setattr(Lineage, "checkpoint", lambda self, name: Checkpoint(name, base.artifact))
    return base.path


def test_the_stage_after_the_refreshed_domains_own_is_compared(lineage: Lineage, known: Path, tmp_path: Path) -> None:
    asked: list[str] = []
    lineage = Lineage(lineage.profile.override({"stages": "code,math,qa,cw"}), 0, lineage.store)
    with pytest.MonkeyPatch.context() as patch:
        found = lineage.checkpoint("base")
        patch.setattr(Lineage, "checkpoint", lambda self, name: asked.append(name) or found)
        given = diagnose_example.example(lineage, tmp_path)
    assert asked == ["code-math", "code-math-qa", "code"] and [*given.checkpoints] == ["before", "after", "base"]
    assert [file.name for file in given.prompts] == ["math.jsonl", "qa.jsonl"]
    first = json.loads(given.prompts[0].read_text().splitlines()[0])
    item = lineage.domains["math"].items("test")[0]
    assert first == {"prompt": lineage.profile.prompt(item.prompt, item.prefill)}
    command = given.command("rollback", "--keep 5%")
    assert command.startswith("crossdomain rollback") and "--prompts math.jsonl" in command and "--keep 5%" in command


def test_one_stage_is_compared_with_the_base_and_a_chat_model_is_asked_everyday_questions(
    lineage: Lineage, known: Path, tmp_path: Path
) -> None:
    alone = Lineage(lineage.profile.override({"stages": "math"}), 0, lineage.store)
    given = diagnose_example.example(alone, tmp_path / "prompts")
    assert [*given.checkpoints] == ["before", "after"]
    assert [file.name for file in given.prompts] == ["math.jsonl"]
    chat = tmp_path / "chat"
    shutil.copytree(known, chat)
    config = json.loads((chat / "tokenizer_config.json").read_text())
    (chat / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages[0].content }}"}))
    with pytest.MonkeyPatch.context() as patch:
        artifact = alone.checkpoint("base").artifact
        moved = Checkpoint("base", type(artifact)(artifact.key, chat, artifact.manifest))
        patch.setattr(Lineage, "checkpoint", lambda self, name: moved)
        given = diagnose_example.example(alone, tmp_path / "prompts")
    assert [file.name for file in given.prompts] == ["everyday.jsonl", "math.jsonl"]
    assert all(file.is_file() for file in given.prompts)
