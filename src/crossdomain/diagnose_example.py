"""Chapter 9: two checkpoints of a run and files of prompts, handed to the diagnosis as a reader hands over their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from crossdomain import paths
from crossdomain.checkpoint_pair import CheckpointPair
from crossdomain.lineage import BASE, Lineage

EVERYDAY = "prompts/everyday.jsonl"  # chat questions, in the project


class Example(NamedTuple):
    """What the command is given: directories by option, and files of prompts, the skill to bring back first."""

    checkpoints: dict[str, Path]
    prompts: list[Path]

    def command(self, *words: str) -> str:
        """The words of a command line with these checkpoints and prompts, a line an option."""
        options = [f"--{role} {path.name}" for role, path in self.checkpoints.items()]
        options += [f"--prompts {path.name}" for path in self.prompts]
        return " \\\n    ".join([f"crossdomain {words[0]}", *options, *words[1:]])


def example(lineage: Lineage, directory: Path) -> Example:
    """The stage after the refreshed domain's own, or, where none follows, the first stage against what it started from.

    Prompts are test prompts of the domains of these stages. A model with a chat template that has been trained on one
    domain alone is asked everyday questions, too, as the skill to bring back.

    Args:
        lineage: the run.
        directory: gets the files of prompts.
    """
    profile, sequence = lineage.profile, lineage.sequence
    if profile.interferes:
        own = profile.stages.index(profile.refresh)
        names = {"before": sequence[own + 1], "after": sequence[own + 2], "base": sequence[own]}
        asked, files = profile.stages[own : own + 2], []
    else:
        names = {"before": BASE, "after": sequence[1]}
        chats = lineage.checkpoint(BASE).tokenizer().chat_template is not None
        asked, files = profile.stages[:1], [paths.root() / EVERYDAY] if chats else []
    directory.mkdir(parents=True, exist_ok=True)
    for domain in asked:
        items = lineage.domains[domain].items("test")[: profile.curvature_prompts]
        texts = [profile.prompt(item.prompt, item.prefill) for item in items]
        files.append(directory / f"{domain}.jsonl")
        files[-1].write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return Example({role: lineage.checkpoint(name).artifact.path for role, name in names.items()}, files)


def pair(lineage: Lineage, given: Example) -> CheckpointPair:
    """The checkpoints of an example, compared on answers as long as its domains' may be."""
    longest = max(lineage.domains[stage].max_new_tokens for stage in lineage.profile.stages)
    return CheckpointPair(
        given.checkpoints["before"],
        given.checkpoints["after"],
        given.prompts,
        given.checkpoints.get("base"),
        max_new_tokens=longest,
        store=lineage.store,
        refer=lineage.refer,
    )
