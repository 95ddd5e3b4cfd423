"""A diagnosis in words and tables, for terminal, report and page alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from transformers import Qwen3Config

from crossdomain import diagnosis_needs, edits
from crossdomain.checkpoint_pair import FISHER, CheckpointPair
from crossdomain.diagnosis import CONTROL_PERCENT, Diagnosis
from crossdomain.layerwise import Decoder
from crossdomain.words import plain

HOLDS = 1.5  # a prediction within this factor of what happens is called good
SHOWN = 10  # tensors of the list of those that carry most
MODULES = "Conflict modules"
KEPT = 3  # modules that are named in a sentence

LONG = 512  # tokens of an answer, for models that reason


class Table(NamedTuple):
    """A titled table of text, and how to read it."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def in_short(found: Diagnosis) -> list[str]:
    """What a diagnosis says, a sentence or two a point."""
    lines = [_edited(found), *(_damaged(found, name) for name in found.pair.prompts)]
    if found.directions is not None:
        whole = _row(found.directions, "module", "all")
        lines.append(
            f"The update has cosine {plain(whole['cosine'], 3, sign=True)} with that from base to before; "
            f"{plain(100 * whole['opposite'], 1)} % of the entries that both moved went opposite ways (chance: 50 %)."
        )
    return [*lines, _carried(found), *returned(found.returns())]


def needs(pair: CheckpointPair) -> str:
    """What a diagnosis takes, said before it starts."""
    memory, disk = pair.needs()
    return (
        f"{pair.parameters:,} parameters: at most about {memory:.1f} GiB of memory, and {disk:.1f} GiB on the "
        "store's disk"
    )


def four_billion() -> Qwen3Config:
    """The configuration of Qwen3-4B's sizes, the paper's, for what such a model would take."""
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )


def at_scale(measured: Mapping[str, Any]) -> str:
    """What products cost, and what that makes of a model of 4 billion parameters.

    Args:
        measured: what `benchmarks/curvature_at_scale.py` saved.
    """
    rows = [
        {
            "product": row["work"] + (", a piece at a time" if row["how"] == "layerwise" else ""),
            "rows at a time": row["rows"],
            "time": f"{row['seconds']:.0f} s ({row['seconds_ratio']:.1f})",
            "peak memory": f"{row['memory'] / 1024:.1f} GiB ({row['memory_ratio']:.2f})",
        }
        for row in measured["rows"]
    ]
    config = four_billion()
    decoder = Decoder(config)
    parameters = sum(math.prod(decoder.shape(name)) for name in decoder.names)
    memory, disk = diagnosis_needs.needs(decoder, config, 2 * parameters, LONG)
    product = next(row for row in measured["rows"] if row["how"] == "layerwise" and row["work"] == "Fisher")
    seconds = product["seconds"] * parameters / measured["parameters"] * LONG / measured["tokens"]
    return (
        f"Measured with {measured['model']} ({measured['parameters'] / 1e6:.0f} million parameters, float32) on "
        f"{measured['tokens']} tokens, one thread of {measured['hardware']['processor']}; in brackets as multiples of "
        f"the first row, a gradient step:\n\n{pd.DataFrame(rows).to_html(index=False, border=0)}\n\n"
        f"A Qwen3 of {parameters / 1e9:.1f} billion parameters stored in bfloat16 would, by the formula of the bound that "
        f"is stated before a diagnosis starts, take at most {memory:.0f} GiB of memory for answers of {LONG} tokens, and "
        f"{disk:.0f} GiB of disk for the Fisher diagonal. Time grows like parameters times tokens: at the rate measured "
        f"here a Fisher product takes {seconds / 60:.0f} minutes of one core for every {LONG} tokens. On few cores that "
        f"asks for few, short answers (`--limit`, `--max-new-tokens`)."
    )


def returned(effects: pd.DataFrame) -> list[str]:
    """What each rollback candidate gives and costs, in a sentence."""
    lines = []
    for (ranking, percent), rows in effects.groupby(["ranking", "percent"], sort=False):
        gain = rows[rows["role"] == "returned"].iloc[0]
        text = f"Taking back {percent:g} % of the parameters by {ranking} returns {_share(gain)} of the "
        text += f"divergence on {gain['prompts']}"
        if not math.isnan(gain["predicted"]):
            text += f" (predicted: {_percent(gain['predicted'] / gain['whole'])})"
        costs = [f"{_share(row)} of what was learned on {row['prompts']}" for _, row in _costs(rows)]
        lines.append(text + (f", and undoes {', '.join(costs)}." if costs else "."))
    return lines


def tables(found: Diagnosis) -> list[Table]:
    """All tables of a diagnosis, in the order in which they are read."""
    parts = [_damage(found), _modules(found), _tensors(found), _rollback(found), _edits(found), _overlap(found)]
    return [*parts, *([_directions(found.directions)] if found.directions is not None else [])]


def heat(found: Diagnosis) -> pd.DataFrame:
    """Shares of the skill's predicted damage by module (rows) and layer (columns); NaN where there is no such tensor."""
    rows = found.modules[found.modules["prompts"] == found.pair.skill].dropna(subset="layer")
    table = rows.pivot_table("share", "module", "layer", aggfunc="sum", sort=False)
    return table.set_axis([int(layer) for layer in table.columns], axis=1).sort_index(axis=1)


# --- Sentences ---


def _edited(found: Diagnosis) -> str:
    tensors, shares = found.edits["tensors"], found.edits["shares"]
    relative = _norm(tensors["norm_delta"]) / _norm(tensors["norm_before"])
    still = shares[(shares["subtraction"] == "stored") & (shares["kind"] == "paper")]["share"].iloc[0]
    return (
        f"From before to after the weights moved by {plain(100 * relative, 3)} % of their length; "
        f"{plain(100 * still, 1)} % of the entries moved by less than {edits.PAPER_ABSOLUTE:g} and by less than "
        f"{100 * edits.PAPER_RELATIVE:g} % of themselves."
    )


def _damaged(found: Diagnosis, name: str) -> str:
    row = _row(found.damage, "prompts", name)
    actual, predicted = row["actual"], row["predicted"]
    text = (
        f"On {name} after's answers diverge from before's by {_nats(actual, row['actual_error'])} nats an answer; ½ δᵀFδ "
        f"predicts {_nats(predicted, row['predicted_error'])}"
    )
    holds = 1 / HOLDS < predicted / actual < HOLDS if actual > 0 else False
    if holds:
        return text + ": the quadratic model holds."
    return text + ": the update is too long for the quadratic model, so read modules and predictions as a ranking."


def _carried(found: Diagnosis) -> str:
    shares = found.modules[found.modules["prompts"] == found.pair.skill].groupby("module")["share"].sum()
    first = shares.sort_values(ascending=False).head(KEPT)
    named = ", ".join(f"{module} ({_percent(share)})" for module, share in first.items())
    return f"Most of the predicted damage to {found.pair.skill} goes through {named}."


# --- Tables ---


def _damage(found: Diagnosis) -> Table:
    rows = [
        [
            str(row["prompts"]),
            _nats(row["actual"], row["actual_error"]),
            _nats(row["predicted"], row["predicted_error"]),
            f"{row['judged']} answers, {row['tokens']} tokens",
        ]
        for _, row in found.damage.iterrows()
    ]
    note = "KL(before ‖ after) on before's own answers, and ½ δᵀFδ; nats an answer, with standard errors over prompts."
    return Table("Damage", note, ["prompts", "actual", "predicted", "on"], rows)


def _modules(found: Diagnosis) -> Table:
    names = list(found.pair.prompts)
    shares = found.modules.pivot_table("share", "module", "prompts", aggfunc="sum", sort=False)[names]
    shares = shares.sort_values(names[0], ascending=False)
    rows = [[str(module), *(_percent(value) for value in row)] for module, row in shares.iterrows()]
    note = "Share of ½ δᵀFδ that goes through each module; the parts sum to 100 %, and a negative one works against it."
    return Table(MODULES, note, ["module", *names], rows)


def _tensors(found: Diagnosis) -> Table:
    own = found.modules[found.modules["prompts"] == found.pair.skill].nlargest(SHOWN, "share")
    rows = [[str(row["name"]), _percent(row["share"])] for _, row in own.iterrows()]
    return Table("Tensors that carry most", f"Of {found.pair.skill}.", ["tensor", "share"], rows)


def _rollback(found: Diagnosis) -> Table:
    effects, others = found.returns(), found.pair.others
    rows = []
    for (ranking, percent), part in effects.groupby(["ranking", "percent"], sort=False):
        gain = part[part["role"] == "returned"].iloc[0]
        predicted = "" if math.isnan(gain["predicted"]) else _nats(gain["predicted"])
        costs = [_share(row) for _, row in _costs(part)]
        share = [_nats(gain["actual"], gain["error"]), _share(gain)]
        rows.append([str(ranking), f"{percent:g} %", predicted, *share, *costs])
    head = ["ranking", "taken back", "predicted", "returned", "share of damage", *(f"undone on {o}" for o in others)]
    note = (
        f"Coordinates of after that are set back to before, the first of a ranking. Returned: how much less the divergence "
        f"from before is on {found.pair.skill}, in nats an answer. Undone: the divergence from after on its own answers, "
        f"over that of before. {FISHER} uses the Fisher matrix of before on other prompts; magnitude and random are "
        f"controls at {CONTROL_PERCENT:g} %."
    )
    return Table("Rollback candidates", note, head, rows)


def _edits(found: Diagnosis) -> Table:
    rows = []
    for module, part in found.edits["tensors"].groupby("module", sort=False):
        size, moved = _norm(part["norm_before"]), _norm(part["norm_delta"])
        rank = part["effective_rank"].median()
        relative = f"{100 * moved / size:.3f} %" if size else "—"
        rows.append(
            [str(module), f"{part['parameters'].sum():,}", relative, f"{part['max_abs'].max():.2g}", _rank(rank)]
        )
    note = (
        "Length of the change over that of the weights, its largest entry, the median effective rank of its matrices."
    )
    return Table("Edits", note, ["module", "parameters", "relative", "largest", "rank"], rows)


def _overlap(found: Diagnosis) -> Table:
    rows = [
        [
            str(row["a"]),
            str(row["b"]),
            plain(row["jaccard"], 3),
            f"{plain(row['chance'], 3)} (up to {plain(row['high'], 3)})",
        ]
        for _, row in found.overlap.iterrows()
    ]
    note = "Jaccard index of sets of MLP neurons: the 10 % edited most, and the 10 % that write most on a domain's answers."
    return Table("Overlap", note, ["", "", "Jaccard", "chance"], rows)


def _directions(directions: pd.DataFrame) -> Table:
    rows = [
        [str(row["module"]), plain(row["cosine"], 3, sign=True), f"{plain(100 * row['opposite'], 1)} %"]
        for _, row in directions.iterrows()
    ]
    note = "The update from base to before against that from before to after; 50 % opposite by chance."
    return Table("Direction", note, ["module", "cosine", "opposite signs"], rows)


def _row(table: pd.DataFrame, column: str, value: str) -> pd.Series:
    """The row of a table that has a value in a column."""
    return table[table[column] == value].iloc[0]


def _costs(rows: pd.DataFrame) -> list[tuple[object, pd.Series]]:
    return list(rows[rows["role"] == "cost"].iterrows())


def _nats(value: float, error: float | None = None) -> str:
    text = f"{value:.3g}" if error is None else f"{value:.3g} ± {error:.1g}"
    return text.replace("-", "−")


def _share(effect: pd.Series) -> str:
    """What a candidate does, of what there is to do."""
    return _percent(effect["actual"] / effect["whole"])


def _percent(share: float) -> str:
    return f"{plain(100 * share, 1)} %"


def _rank(rank: float) -> str:
    return "—" if math.isnan(rank) else f"{rank:.1f}"


def _norm(norms: pd.Series) -> float:
    return float(np.sqrt(np.square(norms).sum()))
