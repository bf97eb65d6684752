"""The certificate of a fitted world of any kind: it needs the world's `simulate`, and claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from wmjax.core.errors import UserError
from wmjax.core.files import finite
from wmjax.data.panel import Panel
from wmjax.evaluate import certificate
from wmjax.evaluate.certificate import Certificate, CertificateConfig

HORIZON = 7


def certify(
    world: Any,
    panel: Panel,
    *,
    claims: Mapping[str, list[str]] | None = None,
    cfg: CertificateConfig = CertificateConfig(),  # noqa: B008 - frozen
    horizon: int = HORIZON,
    seed: int = 0,
) -> Certificate:
    """Hold a world's counterfactual sensitivity against what it claims, over the panel's last periods.

    Args:
        world: any fitted world.
        panel: the panel to roll out.
        claims: action to the outcomes that it may reach; by default the world's own `claims()`, and, where it has
            none, that every action may reach every outcome.
        cfg: how.
        horizon: periods rolled out.
        seed: of the common luck.

    Raises:
        UserError: where the panel is too short, or claims name what is not there.
    """
    start = panel.num_times - horizon
    if start < 1:
        raise UserError(f"{panel.num_times} periods leave no history before a horizon of {horizon}")
    rows = panel.arrays.mask[:, start - 1 :].all(1)
    if not rows.any():
        raise UserError(f"no unit is observed in all of the last {horizon + 1} periods")
    actions, outcomes = panel.arrays.actions.astype(np.float64), panel.arrays.outcomes.astype(np.float64)
    key, seen = jax.random.key(seed), panel.arrays.mask[:, :start]

    def rollout(plan: np.ndarray) -> np.ndarray:
        whole = actions.copy()
        whole[rows, start:] = plan
        found = world.simulate(key, panel, whole.astype(np.float32), start=start)["mean"]
        mean = found.mean([d for d in ("member", "draw") if d in found.dims]).transpose("unit", "time", "outcome")
        return mean.to_numpy().astype(np.float64)[rows]

    def spread(values: np.ndarray) -> np.ndarray:
        sd = values[:, :start][seen].std(0)
        return np.where(sd > 0, sd, 1.0)

    return certificate.certify(
        np.random.default_rng(seed),
        rollout,
        actions[rows, start:],
        outcomes[rows, start:],
        outcomes[rows, start - 1],
        _claims(world, panel, claims),
        cfg=cfg,
        action_sd=spread(actions),
        outcome_sd=spread(outcomes),
    )


def _claims(world: Any, panel: Panel, claims: Mapping[str, list[str]] | None) -> np.ndarray:
    if claims is None:
        if hasattr(world, "claims"):
            return np.asarray(world.claims()) > 0
        return np.ones((len(panel.action_names), len(panel.outcome_names)), bool)
    found = np.zeros((len(panel.action_names), len(panel.outcome_names)), bool)
    for action, reached in claims.items():
        for outcome in reached:
            found[panel.action_index(action), panel.outcome_index(outcome)] = True
    return found


def table(found: Certificate, panel: Panel) -> pd.DataFrame:
    """Lay a certificate's pairs out: action, outcome, claimed, influence."""
    pairs = [(a, o) for a in panel.action_names for o in panel.outcome_names]
    return pd.DataFrame(
        {
            "action": [a for a, _ in pairs],
            "outcome": [o for _, o in pairs],
            "claimed": found.claims.ravel(),
            "influence": found.influence.ravel(),
        }
    )


def summary(found: Certificate) -> dict[str, Any]:
    """Give the verdict and its figures as plain values, for `certificate.json`; None for what is not finite."""
    return {
        "bypass": found.bypass,
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "notes": list(found.notes),
        "along": finite(found.along),
        "dead": found.dead,
        "claimed": int(found.claims.sum()),
        "skill": finite(found.skill),
        "kept": finite(found.kept),
    }
