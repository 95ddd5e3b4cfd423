"""What a refresh does to other domains: Proposition 3's bound on the harm, and the expansion, against what happens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from crossdomain import bounds, damage, spectrum
from crossdomain.curvature import Hessian
from crossdomain.objectives import Objective, Parameters

TOLERANCE = 0.05  # relative, of the top eigenvalue: Lanczos approaches it from below
LANCZOS = 12  # vectors kept at most, and so products before the first restart
LANCZOS_ELEMENTS = 1 << 30  # in all of them: of a model of 100 million parameters, fewer are kept
FEWEST = 4


def collateral(objective: Objective, params: Parameters, displacements: Mapping[str, Tensor]) -> pd.DataFrame:
    """Predicted, bounded and actual change of a domain's loss by displacements from where a refresh starts.

    All derivatives are taken at θ_0, where the refresh starts, on the same data as the actual change. ρ is measured along
    the displacement alone, at its middle and its end: a lower bound of the constant that the proposition asks for.

    Args:
        objective: L_C.
        params: θ_0.
        displacements: d = θ_T − θ_0 by what made it, shape (p,) each.

    Returns:
        A row a displacement: `displacement` (its label), `norm` = ‖d‖, `gradient_norm` = ‖g_C‖, `top_eigenvalue` of H_C,
        `rho`, `bound` of Proposition 3; `first` = g_Cᵀd, `second` = ½ dᵀH_C d, `predicted`, their sum; `actual` rise of the
        loss with its `standard_error` over prompts.
    """
    top, around, rows = top_eigenvalue(objective, params), damage.Local(objective, params), []
    for label, d in displacements.items():
        terms, found = around.expansion(d), around.actual(d)
        drift = damage.hessian_drift(objective, params, d, (0.5, 1.0))["rho"] if terms.norm else pd.Series([0.0])
        rows.append(
            {
                "displacement": label,
                "norm": terms.norm,
                "gradient_norm": terms.gradient_norm,
                "top_eigenvalue": top,
                "rho": drift.max(),
                "bound": bounds.collateral_bound(terms.gradient_norm, top, drift.max(), terms.norm),
                "first": terms.first,
                "second": terms.second,
                "predicted": terms.first + terms.second,
                "actual": found.value,
                "standard_error": found.standard_error,
            }
        )
    return pd.DataFrame(rows)


def top_eigenvalue(objective: Objective, params: Parameters) -> float:
    """λ_max of the Hessian of an objective, to `TOLERANCE`."""
    hessian = spectrum.HessianOperator(Hessian(objective, params), params)
    probe = np.random.default_rng(0).standard_normal(hessian.shape[0]).astype(hessian.dtype)
    if not hessian.matvec(probe).any():  # ARPACK refuses a loss that is constant, as on rollouts of equal rewards
        return 0.0
    size = hessian.shape[0]
    basis = min(size, LANCZOS, max(FEWEST, LANCZOS_ELEMENTS // size))
    return float(spectrum.top_eigenpairs(hessian, 1, tol=TOLERANCE, basis=basis).values[0])
