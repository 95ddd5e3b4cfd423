"""What a training did to a model: two checkpoints compared by edits, routes, predicted and actual damage (C1 to C10).

No labels are needed: damage is the divergence KL(before ‖ ·) on before's own answers to prompts (theory, objective 3),
which has gradient 0 and the Fisher matrix F as its Hessian, so that ½ δᵀFδ predicts it. `checkpoint_pair` says what
`before`, `after`, `base` and the files of prompts are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from crossdomain import directions, edits, models, overlap, routes
from crossdomain.anatomy import place
from crossdomain.checkpoint_pair import FISHER, MAGNITUDE, RANDOM, Candidate, CheckpointPair, Tables
from crossdomain.checkpoint_rollback import Difference, RolledBack
from crossdomain.diagnosis_needs import ROWS
from crossdomain.objectives import Estimate
from crossdomain.overlap import Mask
from crossdomain.weights import Weights

SHARE = 0.1  # of the neurons are "edited most", and of the units are on a route
PERCENTS = (1.0, 5.0, 10.0)  # of the parameters, as rollback candidates
CONTROL_PERCENT = 5.0
CANDIDATES = (*(Candidate(FISHER, p) for p in PERCENTS), *(Candidate(r, CONTROL_PERCENT) for r in (MAGNITUDE, RANDOM)))


class Diagnosis:
    """The tables of a comparison, computed when they are first asked for."""

    def __init__(self, pair: CheckpointPair) -> None:
        self.pair = pair

    # --- Edits and routes ---

    @cached_property
    def edits(self) -> dict[str, pd.DataFrame]:
        """What the training changed.

        Returns:
            `tensors`, `neurons` and `shares` as `edits.Edits` has them, the last summarised over the whole model.
        """
        return self.pair.tables(
            "edits", {"of": "after"}, lambda: _edits(self.pair.weights["before"], self.pair.weights["after"])
        )

    @cached_property
    def overlap(self) -> pd.DataFrame:
        """How much sets of MLP neurons share: those edited most, by each training, and those of each domain's route.

        Returns:
            As `overlap.pairwise`; sets are `edited by after`, `edited by before` (with a base) and `route of <file>`.
        """
        sets = {"edited by after": _most_edited(self.edits["neurons"])}
        if self.pair.own_delta is not None:
            own = self.pair.tables(
                "edits",
                {"of": "before", "base": self.pair.identity["base"]},
                lambda: _edits(self.pair.weights["base"], self.pair.weights["before"]),
            )
            sets["edited by before"] = _most_edited(own["neurons"])
        for name in self.pair.prompts:
            scores = self.route_scores(name)
            active = routes.active(scores[scores["kind"] == routes.NEURON], SHARE)
            sets[f"route of {name}"] = active.to_numpy()
        layers = self.edits["neurons"]["layer"].to_numpy()
        return overlap.pairwise({name: mask for name, mask in sets.items() if mask.any()}, layers)

    def route_scores(self, name: str) -> pd.DataFrame:
        """Scores of all units of `before` on its own answers to a file's prompts: as `routes.mean_over_halves`."""

        def compute() -> Tables:
            answers = self.pair.answers("before", name)
            model = models.load_model(self.pair.paths["before"], dtype=self.pair.dtype("before"))
            found = routes.route_scores(
                model, self.pair.tokenizer.pad_token_id, answers.prompts, answers.responses, batch_size=ROWS
            )
            return {"routes": routes.mean_over_halves(found)}

        return self.pair.tables("routes", self.pair.asked("before", name), compute)["routes"]

    @cached_property
    def directions(self) -> pd.DataFrame | None:
        """With a base: whether the two trainings agree, a row a module and one for `all`; None without.

        Returns:
            `module`, `cosine` of the two updates, and `opposite`, the share of the entries that both moved in which they
            have opposite signs.
        """
        own = self.pair.own_delta
        if own is None:
            return None

        def compute() -> Tables:
            both = {"before": own, "after": self.pair.delta}
            grams = [directions.grams(both, transform=transform) for transform in (torch.clone, torch.sign, _moved)]
            rows = []
            for module in ("all", *dict.fromkeys(place(name).module for name in self.pair.delta.names)):
                values, signs, moved = (found.total(_within(module)) for found in grams)
                cosine = directions.cosines(values)[0, 1]
                rows.append((module, cosine, 1 - directions.agreement(signs, moved)[0, 1]))
            return {"directions": pd.DataFrame(rows, columns=["module", "cosine", "opposite"])}

        return self.pair.tables("directions", {"base": self.pair.identity["base"]}, compute)["directions"]

    # --- Damage ---

    @cached_property
    def damage(self) -> pd.DataFrame:
        """Predicted and actual damage of every file.

        Returns:
            A row a file: `prompts` (its name), `judged` (how many), `tokens` of their answers, `predicted` = ½ δᵀFδ and
            `actual` = KL(before ‖ after) in nats an answer, each with its standard error.
        """
        rows = []
        for name in self.pair.prompts:
            found = self._damage(name)["rows"]
            predicted, actual = (Estimate.of(torch.tensor(found[key].to_numpy())) for key in ("predicted", "actual"))
            rows.append((name, len(found), int(found["tokens"].sum()), *predicted, *actual))
        columns = ["prompts", "judged", "tokens", "predicted", "predicted_error", "actual", "actual_error"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def modules(self) -> pd.DataFrame:
        """Which tensors the predicted damage goes through.

        Returns:
            A row a file and tensor: `prompts`, `name`, `layer`, `module`, `block`, `value` = ½ δ_tᵀ(Fδ)_t, which sum to
            the predicted damage, and `share` of it.
        """
        parts = [self._damage(name)["tensors"].assign(prompts=name) for name in self.pair.prompts]
        return pd.concat(parts, ignore_index=True)

    def _damage(self, name: str) -> dict[str, pd.DataFrame]:
        def compute() -> Tables:
            answers = self.pair.answers("before", name).half(1)
            with self.pair.curvature("before", answers, f"damage to {name}", passes=4, products=1) as curvature:
                actual = curvature.divergences([self.pair.weights["after"]])[0]
                predicted = curvature.quadratic_form(self.pair.delta)
                values = dict.fromkeys(self.pair.decoder.names, 0.0)
                for tensor, part in curvature.ggn_vp(self.pair.delta):
                    change = self.pair.delta.rows(tensor, 0, part.shape[0]).reshape(part.shape)
                    values[tensor] += 0.5 * float((part.double() * change.double()).sum())
            rows = {"predicted": predicted, "actual": actual, "tokens": [len(ids) for ids in answers.responses]}
            tensors = pd.DataFrame([(name, *place(name), value) for name, value in values.items()])
            tensors.columns = pd.Index(["name", "layer", "module", "block", "value"])
            return {
                "rows": pd.DataFrame(rows),
                "tensors": tensors.assign(share=tensors["value"] / tensors["value"].sum()),
            }

        return self.pair.tables("damage", self.pair.asked("before", name), compute)

    def returns(self, candidates: Sequence[Candidate] = CANDIDATES) -> pd.DataFrame:
        """What taking coordinates back returns to the skill, and what it costs the others.

        Args:
            candidates: sets of coordinates.

        Returns:
            A row a candidate and file: `ranking`, `percent` of the parameters, `coordinates`, `prompts`, `role`,
            `predicted` (NaN for a cost or a control), `actual` and its `error`, and `whole`, in nats an answer. For the
            skill (`returned`) they are how much less the divergence from `before` is, of its whole; for the others
            (`cost`) the divergence from `after`, and that of `before` from it.
        """

        def compute() -> Tables:
            sets = [self.pair.rolled_back(candidate) for candidate in candidates]
            counts = [repaired.count() for repaired in sets]
            rows = [
                (c.ranking, c.percent, count, name, *row)
                for name in self.pair.prompts
                for c, count, row in zip(candidates, counts, self._effects(name, candidates, sets), strict=True)
            ]
            columns = [
                *("ranking", "percent", "coordinates", "prompts", "role"),
                *("predicted", "actual", "error", "whole"),
            ]
            return {"returns": pd.DataFrame(rows, columns=columns)}

        asked: dict[str, Any] = {"candidates": [[c.ranking, c.percent] for c in candidates]}
        asked |= {name: self.pair.asked("after", name) for name in self.pair.others}
        asked |= {"skill": self.pair.asked("before", self.pair.skill)}
        return self.pair.tables("returns", asked, compute)["returns"]

    def _effects(
        self, name: str, candidates: Sequence[Candidate], sets: Sequence[RolledBack]
    ) -> list[tuple[str, float, float, float, float]]:
        """Role, predicted, actual, its error and whole of every candidate for a file."""
        returned = name == self.pair.skill
        role, start, end = ("returned", "before", "after") if returned else ("cost", "after", "before")
        answers = self.pair.answers(start, name).half(1)
        predict = [c.ranking == FISHER and returned for c in candidates]
        label = f"rollback: {role}, {name}"
        passes = 2 + len(sets) + (1 + sum(predict) if returned else 0)
        with self.pair.curvature(start, answers, label, passes=passes) as curvature:
            whole, *parts = curvature.divergences([self.pair.weights[end], *sets])
            hurt = curvature.quadratic_form(self.pair.delta).mean() if returned else torch.zeros(())
            rows = []
            for repaired, predicted, found in zip(sets, predict, parts, strict=True):
                effect = Estimate.of(whole - found if returned else found)
                change = float("nan")
                if predicted:
                    change = float(
                        hurt - curvature.quadratic_form(Difference(repaired, self.pair.weights["before"])).mean()
                    )
                rows.append((role, change, *effect, float(whole.mean())))
        return rows


def _edits(before: Weights, after: Weights) -> Tables:
    found = edits.analyse(before, after)
    return {"tensors": found.tensors, "shares": edits.summarise(found.shares), "neurons": found.neurons}


def _most_edited(neurons: pd.DataFrame) -> Mask:
    """The neurons that were edited most; none where none was."""
    magnitude = neurons["magnitude"].to_numpy()
    return overlap.top(magnitude, SHARE) if magnitude.any() else np.zeros(len(magnitude), dtype=bool)


def _moved(values: torch.Tensor) -> torch.Tensor:
    return values.sign().abs()


def _within(module: str) -> Callable[[str], bool]:
    return lambda name: module in ("all", place(name).module)
