"""Result tables of a study that never was, in which every claim of the paper holds on all reported seeds."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd

from crossdomain import staging
from crossdomain.claims import REPORTED_SEEDS

DOMAINS = {"code": "Code", "math": "Math", "qa": "QA", "cw": "CW"}
PROMPTS = 6


def tables() -> dict[str, pd.DataFrame]:
    """The tables of all chapters, by name; seeds differ a little."""
    per_seed = [_of_seed(seed, 1 + 0.01 * seed) for seed in REPORTED_SEEDS]
    found = {name: pd.concat([tables[name] for tables in per_seed], ignore_index=True) for name in per_seed[0]}
    own = [{"scope": scope, "seeds": seeds, "jaccard": 0.8} for scope in SCOPES for seeds in ("4 5", "6 7")]
    return found | {"neuron_stability": pd.DataFrame(own)}


SCOPES = ("global", "within layers")
REFRESHES = {"math": "refresh Math"} | {d: f"control: refresh {DOMAINS[d]}" for d in ("code", "qa", "cw")}
GAINS = {"refresh Math": 8.0, "control: refresh Code": 1.0, "control: refresh QA": 2.0, "control: refresh CW": -1.0,
         staging.UNDAMAGED: 0.5, staging.ADAM_RESTART: 3.0}  # fmt: skip


def _of_seed(seed: int, size: float) -> dict[str, pd.DataFrame]:
    experts = [f"{title} expert" for title in DOMAINS.values()]
    found = {
        "unchanged": [
            {"role": role, "kind": kind, "subtraction": "float32", "share": share}
            for role, worse in [*((role, 0) for role in experts), ("QA stage", 80)]
            for kind, share in (("paper", 85 - worse), ("absolute", 1.0))
        ],
        "edit_norms": [{"role": role, "relative_norm": 2 * size} for role in experts],
        "precision": [
            {"variant": variant, "learning_rate": rate, "unchanged": share}
            for variant, rate, share in (
                ("float32, stored as bfloat16", 1e-6, 88.0),
                ("float32, stored as bfloat16", 1e-4, 5.0),
                ("float32", 1e-6, 0.1),
            )
        ],
        "neuron_overlap": [{"scope": scope, "jaccard": 0.1 * size} for scope in SCOPES for _ in combinations(DOMAINS, 2)],
        "gradient_pairs": [
            {"cosine": sign * 0.02 * size, "split_half_a": 0.6, "split_half_b": 0.4} for sign in (1, -1)
        ],
        "gradient_extremes": [{"extreme": extreme, "p": 0.001} for extreme in ("conflict", "synergy") for _ in range(3)],
        "route_overlap": [
            {"at": at, "score": score, "kind": "neuron", "share": share, "jaccard": 0.3 * size, "layer_chance": 0.08,
             "layer_high": 0.12}
            for at in ("in the base", "after the sequence")
            for score in ("contribution", "activation", "attribution")
            for share in (0.05, 0.1)
        ],
        "update_directions": [
            {"of": of, "on_route": 0.3, "random_low": -0.05, "random_high": 0.05} for of in ("experts", "stages")
        ],
        "pair_damage": [
            {"a": a, "b": b, "damage": size * k} for k, (a, b) in enumerate(permutations(DOMAINS, 2))
        ],
        "pair_predictors": [
            {"a": a, "b": b, "route_update_conflict": 0.01 * k, "update_norm": (7 * k) % 12,
             "update_conflict": (5 * k) % 12}
            for k, (a, b) in enumerate(permutations(DOMAINS, 2))
        ],
        "damage_path": [
            {"t": t, "objective": objective, "first": 0.01 * t, "second": 0.08 * size * t**2, "actual": 0.1 * size * t**2,
             "remainder": 0.1 * size * t**2 - 0.08 * size * t**2 - 0.01 * t}
            for objective in ("exact reward", "KL divergence") for t in (0.5, 1.0)
        ],
        "damage_controls": [
            {"direction": direction, "actual": value * size}
            for direction, value in (("the later stages", 0.1), ("random, same norms", 0.004),
                                     ("random, same norms", 0.006), ("same entries, shuffled", 0.002))
        ],
        "concentration_captured": [
            {"subspace": subspace, "k": k, "quadratic_share": share * k / 64, "inside": 0.06 * size * k / 64,
             "actual": 0.1 * size}
            for subspace, share in (("route", 0.6), ("all parameters", 0.8), ("random", 0.001),
                                    ("coordinates by |δ|", 0.02))
            for k in (8, 64)
        ],
        "refresh_contraction": [
            {"on": on, "multiple": multiple, "space": space, "k": k, "step": step, "inside": inside * size,
             "paper_bound": 0.5 * size}
            for space, end in (("all parameters", 0.2), ("route", 0.3), ("random", 0.95))
            for on, multiple, left in (("math", 1.0, end), ("math", 2.5, 3.0), ("qa", 1.0, 0.9))
            for k in (1, 16) for step, inside in enumerate((1.0, (1 + left) / 2, left))
        ],
        "refresh_grpo": [
            {"own": own, "space": space, "k": 16, "step": step, "inside": inside * size}
            for own in (True, False) for space in ("all parameters", "random") for step, inside in ((0, 1.0), (20, 0.8))
        ],
        "rollback_frontier": [
            {"case": case, "score": score, "percent": percent, "share": share, "regained": points * share * size,
             "lost": 0.5 * size}
            for case in ("the next stage", "all later stages") for percent in (1.0, 10.0) for share in (0.5, 1.0)
            for score, points in (("Fisher", 2.0), ("random", 0.3), ("random, same norm", 0.5), ("magnitude", 1.0))
        ],
        "rollback_damages": [{"case": case, "damage": 4.0} for case in ("the next stage", "all later stages")],
        "alternating_deviations": [
            {"a": "math", "b": b, "alpha": alpha, "order": order, "corrected": corrected, "quantity": quantity,
             "relative": relative * alpha}
            for b, alpha in (("qa", 0.1), ("qa", 1.0), ("code", 0.2), ("code", 1.0)) for corrected in (False, True)
            for order, relative in (("A first", 0.05), ("B first", 0.05), ("A alone", 0.8), ("B alone", 0.9))
            for quantity in ("parameters", "loss of A")
        ],
        "alternating_orders": [
            {"a": "math", "b": "qa", "order": "A first", "corrected": corrected, "quantity": "parameters", "slope": slope}
            for corrected, slope in ((False, 2.0), (True, 3.0))
        ],
        "alternating_descents": [
            {"way": way, "cycle": cycle, "held_out_a": -0.5 - fall_a * cycle, "held_out_b": -0.5 - fall_b * cycle,
             "min_norm": 1 / (1 + cycle)}
            for way, fall_a, fall_b in (("A first", 0.01, 0.01), ("joint step", 0.0105, 0.01), ("A alone", 0.015, -0.002),
                                        ("B alone", -0.002, 0.015))
            for cycle in (0, 1, 2)
        ],
        "changes": [
            {"step": step, "domain": domain, "split": "test", "decoding": decoding, "change": change}
            for decoding in ("T=1", "greedy") for domain in DOMAINS for step, change in _changes(domain, size).items()
        ],
        "refresh_by_prompt": [
            {"step": step, "item": item, "change": (gain + item - (PROMPTS - 1) / 2) * size}
            for step, gain in GAINS.items() for item in range(PROMPTS)
        ],
        "scores": [
            {"role": role, "domain": domain, "split": "test", "decoding": "T=1", "score": score * size}
            for role, score in {"base": 40, "after Code": 45, "after CW": 60, "refresh Math": 63, "Math expert": 70,
                                "control: refresh QA": 61, "control: refresh Code": 62, "control: refresh CW": 60}.items()
            for domain in DOMAINS
        ],
    }  # fmt: skip
    return {name: pd.DataFrame(rows).assign(seed=seed) for name, rows in found.items()}


def _changes(domain: str, size: float) -> dict[str, float]:
    """What each step changes in a domain: Math loses 4 and 5 points after its stage and regains 8."""
    if domain == "math":
        return {
            "Code": 2.0,
            "Math": 30.0,
            "QA": -4.0 * size,
            "CW": -5.0 * size,
            **{k: v * size for k, v in GAINS.items()},
        }
    return dict.fromkeys(("Code", "Math", "QA", "CW", *GAINS), 0.1)


def changed(table: pd.DataFrame, column: str, value: float | None = None, **where: object) -> pd.DataFrame:
    """A table with a column's value replaced (or negated, where none is given) in the rows that have those values."""
    rows = (
        np.logical_and.reduce([table[key] == wanted for key, wanted in where.items()], axis=0) if where else slice(None)
    )
    found = table.copy()
    found.loc[rows, column] = -found.loc[rows, column] if value is None else value
    return found
