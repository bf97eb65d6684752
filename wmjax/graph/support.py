"""Which edges are there: one graph for all shops, chosen from data alone at a stated rate of false discoveries.

For every sender i and receiver j the next value of the receiver is regressed on the sender's saturated memory, with all
that could speak for it held fixed:

    x_j[t+1] = shop + time + own lags + sum_{k != i} (free curve of k's memory) + demand[t] + w_ij H_i[t] + noise

- *Free curves.* Each other channel enters through the leading principal components of a whole family of memories
  (decays times saturations), so that a curve guessed wrongly for one channel does not surface as another's effect.
- *Time.* What all shops share at a time, a season or a holiday, is taken out with each shop's own level.
- *Demand.* What moves all channels of a shop at once shows in the channels' moves to t + 1, beyond what the past
  explains. Half of them stand for the demand; the others, and the sender's own move, are their instruments, both ways
  round, the half that follows it more counting for more: two-stage least squares, the linear form of two proxies for
  one hidden confounder (Miao, Geng and Tchetgen Tchetgen, 2018). Holding the moves themselves fixed would take out only
  the share of the demand that their own noise leaves visible, and pass off the rest as edges. One demand, any loads;
  it takes a channel beside sender and receiver that follows it. Where nothing agrees (first-stage t below `agreement`)
  there is no demand worth the name, and the moves are held fixed.
- *Children.* The move of a channel that the sender drives tells of the sender too, and would take its effect with the
  demand: such a channel is an instrument only. Which they are is asked first, of the other half of the shops and
  liberally (t above `child`), again and again until the answer stands: one too many costs some power. Where a sender
  drives nearly all others, too few are left to stand for the demand.
- *H_i* is chosen from the family on one half of the shops, for the sender and not for the edge, and tested on the other
  half, both ways round (honest splitting).
- *Shops are the unit of luck.* Residuals are added up by shop, t = sum_r S_r / sqrt(sum_r S_r^2), and referred to
  Student's t; media effects are taken to be non-negative, so tests are one-sided.
- *The null is measured.* Falls are luck, or what the model misses: where they are wider than luck alone, all t values
  are divided by as much (an empirical null; Efron, 2004), by less where falls are few, and by half more at most, as
  true falls look alike.
- Times at which the receiver stands at its floor, or would be expected near it, tell of the floor and are left out. A
  channel at its floor also stands badly for the demand: with many shops that is what errs, and `all_clear` leaves out
  those times too, at a cost in power.
- Benjamini and Hochberg choose at the rate asked for, twice: among the edges into the target, and among all others.

Computed once on the host in float64, because the memories of co-moving channels are almost the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from wmjax.graph.edge_tests import ShopPanel, SupportConfig

Matrix = Float[np.ndarray, "nodes nodes"]
WIDEST, FEW_FALLS = 0.5, 5
"""How much wider than luck the null may be found, and with how many falls half of that counts."""


class Support(NamedTuple):
    """What the data say of every edge, row sends, column receives; the diagonal is 0 (1 for p and q values).

    Attributes:
        graph: 0/1, the edges chosen.
        t: the evidence, which also ranks the edges.
        p_value, q_value: one-sided, and the smallest rate at which the edge would be chosen.
        stability: share of the bootstrap draws of shops in which the edge is chosen.
        effect: mean rise of the receiver, in its own units, by one standard deviation of the sender's memory.
    """

    graph: Matrix
    t: Matrix
    p_value: Matrix
    q_value: Matrix
    stability: Matrix
    effect: Matrix


def select(rng: np.random.Generator, values: Float[np.ndarray, "shops times nodes"], *, cfg: SupportConfig) -> Support:
    """Test every edge and choose the support.

    Args:
        rng: deals the shops to two halves and draws the bootstrap.
        values: the shops' series in their own units, the target last; not centred, because zero means silence.
        cfg: how to test.

    Raises:
        ValueError: with fewer than 8 shops, which leave no spread to judge by.
    """
    shops, _, nodes = values.shape
    if shops < 8:
        raise ValueError(f"{shops} shops: at least 8 are needed to tell an effect from luck")
    values = np.asarray(values, np.float64)
    sd = values.std((0, 1))
    # In units of each node's own spread, so that none weighs more for being counted in cents.
    values = values / np.where(sd > 0, sd, 1.0)
    half = np.zeros(shops, bool)
    half[rng.permutation(shops)[: shops // 2]] = True
    panels = [ShopPanel(values[own], cfg) for own in (half, ~half)]
    gains = [[panel.gains(j) for j in range(nodes)] for panel in panels]
    # Only rises count: a fall is no evidence for a memory that is meant to help.
    best = [np.sum(np.maximum(gain, 0.0) ** 2, axis=0).argmax(-1) for gain in gains]
    children = [panel.children(member) for panel, member in zip(panels, best, strict=True)]
    scores, noise = np.zeros((nodes, nodes, shops)), np.zeros((nodes, nodes, shops))
    effect = np.zeros((nodes, nodes))
    for test, (own, panel) in enumerate(zip((half, ~half), panels, strict=True)):
        for j in range(nodes):
            scores[:, j, own], noise[:, j, own], slope = panel.scores(j, best[1 - test], children[1 - test])
            effect[:, j] += slope / 2
    off = ~np.eye(nodes, dtype=bool)
    width = _width(scores, noise)
    t, p, q = _judge(scores, noise, np.ones(shops), width)
    weights = rng.multinomial(shops, np.full(shops, 1 / shops), cfg.draws).astype(np.float64)
    drawn = [_judge(scores, noise, w, width)[2] <= cfg.rate for w in weights]
    stability = np.mean(drawn, axis=0) if drawn else np.zeros_like(t)
    return Support((q <= cfg.rate).astype(np.float64), t, p, q, stability, effect * off * sd)


def _width(scores: np.ndarray, noise: np.ndarray) -> float:
    """Measure how wide the null is, luck alone being 1, from the falls: half of what no effect leaves."""
    shops = scores.shape[-1]
    t, _, _ = _judge(scores, noise, np.ones(shops), 1.0)
    falls = -t[t < 0]
    if not len(falls):
        return 1.0
    wider = np.median(falls) / scipy.stats.t.ppf(0.75, shops - 2) - 1
    return float(1 + np.clip(wider, 0.0, WIDEST) * len(falls) / (len(falls) + FEW_FALLS))


def _judge(scores: np.ndarray, noise: np.ndarray, weights: np.ndarray, width: float) -> tuple[Matrix, Matrix, Matrix]:
    """Turn shops' scores and their noise into t, p and q values; the diagonal is 0, 1 and 1."""
    shops, off = scores.shape[-1], ~np.eye(len(scores), dtype=bool)
    spread = width * np.sqrt(shops / (shops - 1) * (noise**2 @ weights))
    t = np.divide(scores @ weights, spread, out=np.zeros_like(spread), where=off & (spread > 0))
    p = np.where(off, scipy.stats.t.sf(t, shops - 2), 1.0)
    return t, p, _q_values(p)


def _q_values(p: Matrix) -> Matrix:
    """Adjust p values for the choice among edges (Benjamini and Hochberg, 1995), the target's column for itself.

    One family a receiver would be controlled receiver by receiver: those that nothing acts on would each contribute
    their false edges, and among all chosen edges the rate would be exceeded. The diagonal is left out.
    """
    off, q = ~np.eye(len(p), dtype=bool), np.ones_like(p)
    into_target = off & (np.arange(len(p)) == len(p) - 1)
    for family in (into_target, off & ~into_target):
        q[family] = scipy.stats.false_discovery_control(p[family])
    return q
