"""Figures: equal input gives equal text, odd input gives a picture, and the picture says what the table says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from wmjax.report import canvas, curves, figures, frames

HOSTILE = '<script>alert(1)</script> & "$x^$" 週 🛒 \x00\u202e'


def words_of(svg: str) -> list[str]:
    """Parse a figure, which fails where it is not well formed, and give its words."""
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def only(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for name, value in where.items():
        table = frames.where(table, frames.equal(table, name, value))
    assert len(table)
    return table


def draw_all(report) -> dict[str, str]:
    """Draw one figure of every kind."""
    effects = pd.DataFrame(report.summary["effects"]).assign(supported=[True, True, True, False])
    pair = {"outcome": "visit", "action": "push"}
    return {
        "effects": figures.effects(effects),
        "accuracy": figures.accuracy(only(report.accuracy, outcome="visit", quantity="auc")),
        "segments": figures.segments(only(report.segments, **pair), ate=0.148),
        "distribution": figures.effect_distribution(only(report.effects_sample, **pair), ate=0.148),
        "calibration": figures.calibration(only(report.calibration, outcome="visit")),
        "plausibility": figures.plausibility(only(report.plausibility, action="coupon")),
        "overlap": figures.overlap(only(report.overlap, action="coupon"), trim=(0.05, 0.95)),
        "training": curves.training_curve(curves.panels(report.training)[0]),
    }


@pytest.fixture(scope="module")
def drawn(report) -> dict[str, str]:
    return draw_all(report)


def test_equal_input_gives_equal_text_and_leaves_no_style_behind(report, drawn):
    before = dict(mpl.rcParams)
    assert draw_all(report) == drawn
    assert dict(mpl.rcParams) == before


def test_figures_are_whole_and_refer_to_nothing_outside(drawn):
    for name, svg in drawn.items():
        root = ET.fromstring(svg)
        assert root.get("viewBox"), name
        assert root.get("role") == "img", name
        assert len(root.get("aria-label") or "") > 20, name
        for node in root.iter():
            for key, value in node.attrib.items():
                assert not key.endswith("href") or value.startswith("#"), name
        assert "http" not in svg.replace("http://www.w3.org/2000/svg", ""), name
        assert "<style" not in svg, name
        assert "<metadata" not in svg, name


def test_identifiers_are_referred_to_and_differ_between_figures(drawn):
    seen: set[str] = set()
    for svg in drawn.values():
        identifiers = re.findall(r'id="([^"]+)"', svg)
        assert len(identifiers) == len(set(identifiers))
        assert all(f"#{i}" in svg for i in identifiers)
        assert not seen & set(identifiers)
        seen |= set(identifiers)


def test_segments_are_sorted_and_say_their_effects(drawn):
    words = words_of(drawn["segments"])
    ages = [w for w in words if re.fullmatch(r"\d0s", w)]
    assert ages == ["20s", "30s", "40s", "50s", "60s"]  # the fixture's effect falls with age
    assert "all: +14.8" in words
    assert words[0] != "segments"
    assert any("percentage points" in w for w in words)


def test_long_segments_keep_both_ends():
    n = 40
    effect = np.linspace(-0.1, 0.3, n)
    table = pd.DataFrame({"segment": "store", "level": [f"s{i:02d}" for i in range(n)], "effect": effect})
    table = table.assign(
        outcome="visit", action="push", scale="probability", lo=effect - 0.01, hi=effect + 0.01, supported_share=1.0
    )
    words = words_of(figures.segments(table))
    assert "… 24 between" in words
    assert [w for w in words if re.fullmatch(r"s\d\d", w)] == [
        f"s{i:02d}" for i in [*range(39, 31, -1), *range(7, -1, -1)]
    ]


def test_hollow_marks_what_is_not_supported(report):
    table = only(report.segments, outcome="purchase", action="sale1")
    unsupported = figures.segments(table.assign(supported_share=0.1))
    supported = figures.segments(table.assign(supported_share=0.9))
    hollow = f"fill: #ffffff; stroke: {canvas.FAINT}"
    assert unsupported.count(hollow) >= len(table)
    assert hollow not in supported


def test_plausibility_says_the_share_beyond(report):
    table = only(report.plausibility, action="sale1")
    energy, kind = frames.column(table, "free_energy"), table["kind"].to_numpy()
    share = (energy[kind == "counterfactual"] > np.quantile(energy[kind == "factual"], 0.95)).mean()
    assert f"{100 * share:.1f} % of the counterfactual" in " ".join(words_of(figures.plausibility(table)))


def test_training_marks_best_epochs_and_divergence(drawn):
    text = " ".join(words_of(drawn["training"]))
    assert "cross: member 3 diverged" in text
    assert "best epoch" in text
    assert "validation" in text
    assert "training" in text


@pytest.mark.parametrize(
    ("name", "metric", "sign"),
    [
        ("val_loss", ("loss", "validation"), -1),
        ("train/recon_bce", ("recon_bce", "training"), -1),
        ("auc_val", ("auc", "validation"), 1),
        ("free_energy_gap", ("free_energy_gap", ""), 0),
        ("val", ("val", ""), 0),
    ],
)
def test_metric_names_are_taken_apart(name, metric, sign):
    assert tuple(curves.metric_of(name)) == metric
    assert curves.direction(curves.metric_of(name).quantity) == sign


def test_best_epoch_follows_the_direction_and_skips_what_is_not_finite():
    curve = curves.Curve("0", "validation", np.arange(4.0), np.array([np.nan, 0.7, 0.5, 0.9]))
    assert curves.best_epoch(curve, -1) == (2.0, 0.5)
    assert curves.best_epoch(curve, 1) == (3.0, 0.9)
    assert curves.best_epoch(curve, 0) is None
    lost = curves.Curve("0", "validation", np.arange(2.0), np.array([np.nan, np.nan]))
    assert curves.best_epoch(lost, 1) is None


def test_spread_keeps_order_and_gap():
    placed = canvas.spread([1.0, 0.0, 1.05, 5.0], 0.5)
    assert np.argsort(placed).tolist() == [1, 0, 2, 3]
    assert np.diff(np.sort(placed)).min() >= 0.5 - 1e-12
    assert placed[3] == 5.0
    assert canvas.spread([], 1.0) == []


def odd_tables() -> list[tuple[str, str]]:
    """Draw every kind of figure from the least and the oddest of tables."""
    nan = np.nan
    h = HOSTILE
    one = {"outcome": h, "action": h, "scale": "probability", "lo": nan, "hi": nan}
    nothing = pd.DataFrame(
        {"action": [h], "side": ["treated"], "propensity_bin_left": [0.0], "propensity_bin_right": [1.0]}
    )
    lost = pd.DataFrame(
        {"stage": h, "metric": [h, f"val_{h}"], "epoch": 1, "member": 0, "value": [nan, nan]},
    )
    return [
        ("effects", figures.effects(pd.DataFrame([{**one, "ate": nan, "supported": False}]))),
        ("accuracy", figures.accuracy(pd.DataFrame([{**one, "model": h, "quantity": h, "value": 0.5}]))),
        (
            "segments",
            figures.segments(
                pd.DataFrame([{**one, "segment": h, "level": h, "effect": 0.0, "supported_share": nan}]), ate=0.0
            ),
        ),
        (
            "distribution",
            figures.effect_distribution(
                pd.DataFrame([{**one, "unit": h, "effect_probability": 0.0, "supported": True}])
            ),
        ),
        (
            "distribution of nothing",
            figures.effect_distribution(
                pd.DataFrame([{**one, "unit": h, "effect_probability": nan, "supported": True}])
            ),
        ),
        (
            "calibration",
            figures.calibration(pd.DataFrame([{**one, "model": h, "predicted": nan, "observed": nan, "n": 0}])),
        ),
        ("plausibility", figures.plausibility(pd.DataFrame([{**one, "kind": "counterfactual", "free_energy": nan}]))),
        ("overlap", figures.overlap(nothing.assign(count=0))),
        *[("training", curves.training_curve(panel)) for panel in curves.panels(lost)],
    ]


def test_odd_tables_are_drawn_and_names_are_escaped():
    found = odd_tables()
    assert len(found) == 10
    for name, svg in found:
        words = " ".join(words_of(svg))
        assert "<script>" not in svg, name
        assert "script>" in words, name  # the name is still there to be read
        assert "\x00" not in svg, name


def test_effects_of_one_unit_are_averaged_before_they_are_counted():
    rows = pd.DataFrame({"unit": ["a", "a", "b"], "effect_probability": [0.1, 0.3, 0.2], "supported": True})
    svg = figures.effect_distribution(rows.assign(outcome="y", action="x"))
    same = figures.effect_distribution(
        pd.DataFrame({"unit": ["a", "b"], "effect_probability": 0.2, "supported": True, "outcome": "y", "action": "x"})
    )
    assert svg == same
