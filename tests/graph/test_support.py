import dataclasses

import numpy as np
import pytest
from scipy import stats

from wmjax.graph import edge_tests, support
from wmjax.graph.support import SupportConfig

CFG = SupportConfig(decays=(0.3, 0.7), shapes=(2.0,), halves=(1.0,), components=3, draws=0)
SHOPS, TIMES, NODES = 40, 40, 4


def shops(rng, *, edge=0.0, demand=0.0, floor=False, nodes=NODES):
    """Channels and a target; 0 acts on the target through a memory, a demand moves all channels at once."""
    x = np.full((SHOPS, TIMES, nodes), 4.0)
    memory, common = np.full(SHOPS, 4.0), np.zeros(SHOPS)
    for t in range(1, TIMES):
        memory = 0.5 * memory + 0.5 * x[:, t - 1, 0]
        own = rng.normal(size=(SHOPS, nodes)) * 0.3
        x[:, t] = 4 + 0.5 * (x[:, t - 1] - 4) + own
        x[:, t, :-1] += demand * common[:, None]
        x[:, t, -1] += edge * memory
        if floor:
            x[:, t, 1] = np.maximum(x[:, t, 1], 3.8)
        common = 0.8 * common + rng.normal(size=SHOPS)
    return x


def test_one_edge_is_found_and_ranked_first():
    found = support.select(np.random.default_rng(0), shops(np.random.default_rng(1), edge=0.5), cfg=CFG)
    assert found.graph[0, -1] == 1
    assert np.unravel_index(found.t.argmax(), found.t.shape) == (0, NODES - 1)
    assert found.graph.sum() <= 3
    # One standard deviation of the memory moves the target by about edge times that deviation.
    assert 0.05 < found.effect[0, -1] < 0.25
    for matrix, diagonal in ((found.graph, 0), (found.t, 0), (found.p_value, 1), (found.q_value, 1), (found.effect, 0)):
        np.testing.assert_array_equal(np.diagonal(matrix), diagonal)


def test_falls_are_no_evidence():
    found = support.select(np.random.default_rng(0), shops(np.random.default_rng(1), edge=-0.5), cfg=CFG)
    assert found.t[0, -1] < -5
    assert found.graph[0, -1] == 0


def test_without_edges_the_p_values_are_uniform():
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        p.append(support.select(rng, shops(rng), cfg=CFG).p_value[~np.eye(NODES, dtype=bool)])
    p = np.concatenate(p)
    # 144 p values, nearly independent: under the null a Kolmogorov-Smirnov p below 1e-4 has probability 1e-4.
    assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_a_common_demand_is_no_edge():
    """Neither a strong one nor a faint one, of which the other channels' own noise hides most."""
    for demand, seeds, hidden in ((0.6, 1, 0), (0.1, 4, 15)):
        found, held, plain = 0, 0, 0
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            x = shops(rng, demand=demand, nodes=8)
            for change in ({}, {"agreement": np.inf}, {"common": False}):
                chosen = support.select(rng, x, cfg=dataclasses.replace(CFG, **change)).graph[:-1, :-1].sum()
                found, held, plain = (
                    found + chosen * (change == {}),
                    held + chosen * ("agreement" in change),
                    plain + chosen * ("common" in change),
                )
        # No edge is true, so anything is chosen with probability 0.1 a world, and seldom more than a few.
        assert found <= 3
        assert held >= hidden
        assert plain >= 10


def test_a_season_of_all_shops_is_no_edge():
    rng, season = np.random.default_rng(0), np.cumsum(np.random.default_rng(1).normal(size=TIMES))
    x = shops(rng)
    x[:, :-1, 0] += season[1:]
    x[:, 1:, -1] += 0.3 * season[1:]
    with_periods, without = (
        support.select(np.random.default_rng(0), x, cfg=dataclasses.replace(CFG, periods=periods)).t[0, -1]
        for periods in (True, False)
    )
    assert abs(with_periods) < 4
    assert without > 10


def test_time_means_of_few_shops_raise_no_alarm():
    """Twelve shops, six a half, whose time means take a sixth of the noise with them."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        p.append(support.select(rng, shops(rng)[:12], cfg=CFG).p_value[~np.eye(NODES, dtype=bool)])
    # 480 p values, nearly independent: 24 below .05 are expected, more than 45 with probability below 1e-4.
    assert np.sum(np.concatenate(p) < 0.05) <= 45


def test_the_demand_is_taken_out_by_two_stage_least_squares():
    x = shops(np.random.default_rng(1), edge=0.3, demand=0.3, nodes=7)
    panel = edge_tests.ShopPanel(x, CFG)
    d = panel.designs[6]
    fixed = (d.owner != 0) & ~d.is_move
    moves = np.flatnonzero(d.is_move & (d.owner > 0) & (d.owner < 6))
    # Five channels, of which the second is taken for the sender's own.
    found, noise, slope = panel._instrumented(d, 0, 1, fixed, moves, (np.arange(5) == 1,))
    assert moves.shape == (5,)
    given = np.column_stack([d.family[0, 1], d.columns[fixed].T])
    left = d.columns[moves] - (given @ np.linalg.lstsq(given, d.columns[moves].T, rcond=None)[0]).T
    moved = d.columns[moves] / np.linalg.norm(left, axis=1)[:, None]
    want = []
    for one, other in (((0, 3), (1, 2, 4)), ((2, 4), (0, 1, 3))):
        regressors = np.column_stack([given, moved[list(one)].sum(0)])
        instruments = np.column_stack([given, moved[list(other)].T])
        fitted = instruments @ np.linalg.lstsq(instruments, regressors, rcond=None)[0]
        want.append(np.linalg.lstsq(fitted, d.outcome, rcond=None)[0][0])
    assert slope == pytest.approx(np.mean(want), rel=1e-3)
    assert found.sum() == pytest.approx(
        slope
        * np.linalg.norm(
            d.family[0, 1] - d.columns[fixed].T @ np.linalg.lstsq(d.columns[fixed].T, d.family[0, 1], rcond=None)[0]
        ),
        rel=1e-3,
    )
    assert abs(noise.sum()) < 1e-6 * np.abs(noise).sum()


def chain(rng, *, edge):
    """Six channels under one demand: 0 drives 1 and 2 strongly, and acts on the target by `edge`."""
    x, memory = np.full((SHOPS, TIMES, 7), 4.0), np.full(SHOPS, 4.0)
    common = np.zeros(SHOPS)
    for t in range(1, TIMES):
        memory = 0.5 * memory + 0.5 * x[:, t - 1, 0]
        x[:, t] = 4 + 0.5 * (x[:, t - 1] - 4) + 0.4 * common[:, None] + rng.normal(size=(SHOPS, 7)) * 0.3
        x[:, t] += np.outer(memory, [0, 0.5, 0.5, 0, 0, 0, edge])
        common = 0.8 * common + 0.5 * rng.normal(size=SHOPS)
    return x


def test_a_channel_that_the_sender_drives_does_not_stand_for_the_demand():
    found, masked, ts = 0, 0, []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x = chain(rng, edge=0.25)
        for limit in (CFG.child, np.inf):
            chosen = support.select(np.random.default_rng(seed), x, cfg=dataclasses.replace(CFG, child=limit))
            found, masked = found + chosen.graph[0, -1] * (limit < 3), masked + chosen.graph[0, -1] * (limit > 3)
        ts.append(support.select(rng, chain(rng, edge=0.0), cfg=CFG).t[0, -1])
    assert found >= 5
    assert masked <= 1
    # Six t values without an effect, of standard deviation 1: their mean is further off with probability 1e-4.
    assert abs(np.mean(ts)) < 1.6


@pytest.mark.parametrize(
    ("nodes", "wider", "least", "most"), [(12, 1.0, 1.0, 1.12), (12, 1.3, 1.15, 1.4), (3, 3.0, 1.1, 1.28)]
)
def test_the_null_is_as_wide_as_the_falls_say(nodes, wider, least, most):
    """On average over 20 nulls with an error of the model beside their luck; few falls say little."""
    widths, off = [], ~np.eye(nodes, dtype=bool)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(nodes, nodes, 400)) * off[:, :, None]
        scores = noise + np.sqrt(wider**2 - 1) / 20 * rng.normal(size=(nodes, nodes, 1)) * off[:, :, None]
        widths.append(support._width(scores, noise))
        t, p, _ = support._judge(scores, noise, np.ones(400), widths[-1])
        plain = support._judge(scores, noise, np.ones(400), 1.0)[0]
        np.testing.assert_allclose(t * widths[-1], plain)
        np.testing.assert_allclose(p[off], stats.t.sf(t[off], 398))
    # The estimate strays by .15 with 66 falls and so by .03 on average over 20.
    assert least <= np.mean(widths) <= most


def test_a_follower_of_demand_is_no_cause_though_few_others_tell_of_it():
    """Two channels follow a demand that moves the target too, a third hears nothing of it; nothing acts on anything."""
    told, held = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        demand = np.zeros((SHOPS, TIMES))
        for t in range(1, TIMES):
            demand[:, t] = 0.8 * demand[:, t - 1] + 0.5 * rng.normal(size=SHOPS)
        loads = np.array([1.0, 0.6, 0.0, 1.0])
        x = 6 + demand[..., None] * loads + 0.5 * rng.normal(size=(SHOPS, TIMES, 4))
        for found, agreement in ((told, CFG.agreement), (held, np.inf)):
            t = support.select(rng, x, cfg=dataclasses.replace(CFG, agreement=agreement)).t
            found.append([t[0, 3], t[3, 0]])
    # Without the sender's own move as an instrument there is one channel that could tell, and none to check it by.
    assert np.mean(held) > 3
    assert abs(np.mean(told)) < 1


def test_what_is_marked_never_stands_for_the_demand():
    """The sender's own move and its children's: half of what they do is what the sender did."""
    for child in ([True] * 3, [True, False, True], [False, False, True]):
        halves = edge_tests._halves(np.array(child))
        assert len(halves) == min(2, child.count(False))
        for half in halves:
            assert half.any()
            assert not (half & child).any()


def test_a_strong_edge_survives_a_true_fall():
    """Sales up, spend down, between two nodes: no null to measure there."""
    found = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = np.full((SHOPS, TIMES, 2), 4.0)
        for t in range(1, TIMES):
            x[:, t] = 4 + 0.5 * (x[:, t - 1] - 4) + 0.3 * rng.normal(size=(SHOPS, 2))
            x[:, t] += (x[:, t - 1, ::-1] - 4) * [-0.3, 0.3]
        found += support.select(rng, x, cfg=CFG).graph[0, 1]
    assert found == 5


def test_all_clear_or_too_few_rows_leave_nothing_to_say_and_do_not_stop():
    rng = np.random.default_rng(0)
    x = np.abs(shops(rng, edge=0.5)) * (rng.random((SHOPS, TIMES, NODES)) < 0.1)
    for clear in (False, True):
        found = support.select(rng, x, cfg=dataclasses.replace(CFG, all_clear=clear))
        assert np.isfinite(found.t).all()
    x = shops(rng, edge=0.5)
    x[:, :, 1] = 0.0
    x[3, 7, 1] = 1.0
    found = support.select(rng, x, cfg=CFG)
    assert not found.t[:, 1].any()
    assert found.graph[0, -1] == 1


def test_a_channel_that_never_moves_says_nothing():
    x = shops(np.random.default_rng(1), edge=0.5)
    x[:, :, 1] = 2.0
    found = support.select(np.random.default_rng(0), x, cfg=CFG)
    assert found.graph[0, -1] == 1
    assert not found.t[1].any()
    assert not found.t[:, 1].any()


def test_times_at_which_a_channel_lies_low_can_be_left_out():
    x = shops(np.random.default_rng(3), edge=0.5, floor=True)
    kept = [
        np.mean(edge_tests.ShopPanel(x, dataclasses.replace(CFG, all_clear=clear)).designs[-1].outcome != 0)
        for clear in (False, True)
    ]
    assert kept[0] == 1
    assert 0.2 < kept[1] < 0.9


def test_a_floor_is_left_out_and_breaks_nothing():
    rng = np.random.default_rng(3)
    x = shops(rng, edge=0.5, floor=True)
    panel = edge_tests.ShopPanel(x, CFG)
    kept = panel.designs[1].outcome != 0
    assert 0.02 < kept.mean() < 0.7
    assert np.all(panel.designs[0].outcome != 0)
    assert support.select(rng, x, cfg=CFG).graph[0, -1] == 1


def test_the_units_of_a_channel_do_not_matter():
    x = shops(np.random.default_rng(1), edge=0.3)
    one = support.select(np.random.default_rng(0), x, cfg=CFG)
    units = np.array([1e6, 1, 1e-4, 3e5])
    other = support.select(np.random.default_rng(0), x * units, cfg=CFG)
    np.testing.assert_allclose(one.t, other.t, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.effect * units, other.effect, rtol=1e-6, atol=1e-9)


def test_scores_are_those_of_a_regression_by_hand():
    x = shops(np.random.default_rng(1), edge=0.3)
    panel = edge_tests.ShopPanel(x, CFG)
    best = np.array([0, 1, 2, 3])
    found, _, slope = panel.scores(3, best, np.zeros((4, 4), bool))
    d = panel.designs[3]
    fixed = d.columns[d.owner != 0]
    columns = np.column_stack([d.family[0, best[0]], fixed.T])
    coefficient = np.linalg.lstsq(columns, d.outcome, rcond=None)[0]
    assert slope[0] == pytest.approx(coefficient[0], rel=1e-4)
    own = d.family[0, best[0]] - fixed.T @ np.linalg.lstsq(fixed.T, d.family[0, best[0]], rcond=None)[0]
    assert found[0].sum() == pytest.approx(slope[0] * np.linalg.norm(own), rel=1e-3)
    # The quick t value of the search is the classical one, but for degrees of freedom and the effect's own variance.
    noise = np.sqrt(np.mean((d.outcome - columns[:, 1:] @ np.linalg.lstsq(fixed.T, d.outcome, rcond=None)[0]) ** 2))
    assert panel.gains(3)[0, best[0]] == pytest.approx(slope[0] * np.linalg.norm(own) / noise, rel=1e-3)


def test_memories_are_adstock_and_hill():
    x = np.abs(np.random.default_rng(0).normal(size=(2, 5)))
    family = edge_tests.memories(x, cfg=CFG)
    memory = x[:, 0].copy()
    for t in range(1, 5):
        memory = 0.7 * memory + 0.3 * x[:, t]
    np.testing.assert_allclose(family[2, :, -1], memory)
    middle = np.median(family[2])
    np.testing.assert_allclose(family[3, :, -1], memory**2 / (memory**2 + middle**2))


def test_stability_counts_the_draws_that_choose():
    x = shops(np.random.default_rng(1), edge=0.5)
    found = support.select(np.random.default_rng(0), x, cfg=dataclasses.replace(CFG, draws=40))
    assert found.stability[0, -1] > 0.9
    assert found.stability[1, -1] < 0.5
    assert np.all(np.diagonal(found.stability) == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rate": 0.0}, "rate is"), ({"decays": (1.0,)}, "decays are"), ({"components": 0}, "components is 0")],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CFG, **changes)


def test_too_few_shops_are_refused():
    with pytest.raises(ValueError, match="5 shops"):
        support.select(np.random.default_rng(0), np.zeros((5, 20, 3)), cfg=CFG)
