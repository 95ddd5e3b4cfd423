"""What the paper reports, with how sure its source is."""

from __future__ import annotations

import pandas as pd

ABSTRACT, SECONDARY = "abstract", "reported in secondary sources"

# All of Qwen3-4B-Thinking-2507. C9 (points): after Code → Math → QA → CW and after a brief Re-Math refresh. C1 (percent
# of the parameters), C2 (Jaccard) and C3 (cosine): of single-domain reinforcement learning.
REPORTED = pd.DataFrame(
    [
        ("math_peak", "Math at its best, before later stages", 66.49, SECONDARY),
        ("math_damaged", "Math after Code → Math → QA → CW", 57.66, ABSTRACT),
        ("math_refreshed", "Math after the Re-Math refresh", 66.04, ABSTRACT),
        ("average_damaged", "average before the refresh", 64.25, SECONDARY),
        ("average_refreshed", "average after the refresh (the best)", 66.39, ABSTRACT),
        ("refresh_steps", "optimisation steps of the refresh (about)", 3.0, SECONDARY),
        ("unchanged_low", "parameters that change by < 1e-7 and relatively by < 1e-3, at least", 77.0, SECONDARY),
        ("unchanged_high", "parameters that change by < 1e-7 and relatively by < 1e-3, at most", 89.0, SECONDARY),
        ("neuron_jaccard", "mean Jaccard of the top 10 % changed neurons, below", 0.19, SECONDARY),
        ("gradient_cosine", "cosine of the Math and QA gradients (about)", 0.0, SECONDARY),
    ],
    columns=["quantity", "meaning", "value", "source"],
).set_index("quantity")


def value(quantity: str) -> float:
    """A reported value."""
    return float(REPORTED["value"].to_dict()[quantity])
