"""What each scale is, and the claims side by side, a column a scale."""

from __future__ import annotations

import html
from collections.abc import Sequence

from crossdomain.claims import CLAIMS
from crossdomain.gathering import other_seeds
from crossdomain.scales import Scale
from crossdomain.words.claims import NOT_JUDGED, badge, outcomes, stated, table

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FEW = 5  # seeds, or bases: with fewer the intervals are no more than a hint


def basis(seeds: str, bases: str) -> str:
    """How much repetition intervals and verdicts rest on, such as `3 seeds on one base`, and what few of them leave open.

    Args:
        seeds: RL seeds, separated by blanks.
        bases: the different bases that they start from, separated by blanks.
    """
    many, kinds = len(seeds.split()), len(bases.split())
    said = f"{_count(many, 'seed')} on {_count(kinds, 'base')}"
    if many == 1:
        return f"{said}: nothing was repeated, so that values stand without intervals over seeds"
    if kinds == 1:
        few = " With so few, a verdict is a first look." if many < FEW else ""
        return f"{said}: intervals say how seeds vary, and nothing of how another base would do.{few}".rstrip(".")
    return said


def description(scale: Scale) -> str:
    """Markdown: an item that says what a scale is: its model, parameters and seeds."""
    settings, found = scale.manifest["profile"], scale.headline
    made = settings["model"] == "tiny"
    model = "a Qwen3, trained from nothing for it" if made else f"the pretrained model `{settings['model']}`"
    numbers = " Its numbers mean nothing: it checks the machinery." if scale.name == "machinery" else ""
    rests = basis(found["seeds"], found["base_seeds"])
    return (
        f"* **{scale.label}** (scale: {scale.name}): {model}, {found['parameters']} parameters; {found['stages']}. "
        f"{rests[0].upper()}{rests[1:]}.{numbers} Seeds {seeds_by_chapter(scale)}."
    )


def seeds_by_chapter(scale: Scale) -> str:
    """Its seeds, and chapters that have others, such as `0 1 2 (chapters 3, 4: 0 1; chapter 6: 1)`."""
    by_seeds: dict[str, list[str]] = {}
    for chapter, others in other_seeds(scale.manifest).items():
        by_seeds.setdefault(others, []).append(str(int(chapter[:2])))
    parts = [f"chapter{'s' * (len(many) > 1)} {', '.join(many)}: {others}" for others, many in by_seeds.items()]
    return f"{scale.headline['seeds']} ({'; '.join(parts)})" if parts else str(scale.headline["seeds"])


def comparison(scales: Sequence[Scale]) -> str:
    """HTML: a row a claim, what the paper reports for it, then a column a scale: the verdict and the numbers behind it.

    Controls are named where they do not hold, since they can decide alone.
    """
    head = ["claim, and what the paper reports"]
    head += [f"{scale.label}<br>scale: {scale.name}<br>{_short(scale)}" for scale in scales]
    rows = []
    for claim in CLAIMS:
        cells = [f"<b>{claim.id}</b> {stated(claim)}"]
        for scale in scales:
            finding = scale.claims.get(claim.id, NOT_JUDGED)
            failing = [f"{line} (control)" for line in outcomes(finding, controls=True) if not line.startswith("✓")]
            lines = "<br>".join(map(html.escape, [*outcomes(finding), *failing])) or html.escape(finding["reason"])
            other = other_seeds(scale.manifest).get(claim.chapter)
            whose = f"<br>(seeds {html.escape(other)})" if other else ""
            cells.append(f"{badge(finding['verdict'])}<br>{lines}{whose}")
        rows.append(cells)
    return table(head, rows, wide=range(len(head)))


def _short(scale: Scale) -> str:
    seeds, bases = (len(scale.headline[name].split()) for name in ("seeds", "base_seeds"))
    return f"{_count(seeds, 'seed')}, {_count(bases, 'base')}"


def _count(number: int, noun: str) -> str:
    return f"{COUNTS[number] if number < len(COUNTS) else number} {noun}{'' if number == 1 else 's'}"
