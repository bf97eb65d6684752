"""What the commands of the graph world and of the certificate do with a run's folder."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import jax

from wmjax.core.errors import UserError
from wmjax.core.files import write_json, write_parquet
from wmjax.data.panel import Panel
from wmjax.evaluate.certificate import Certificate, CertificateConfig
from wmjax.report import console, graph_page
from wmjax.report.numbers import percent
from wmjax.report.run import Run, answered
from wmjax.worlds import certifying, graph
from wmjax.worlds.graph import GraphConfig, GraphWorld, fitting


def fit_run(panel: Panel, cfg: GraphConfig, out: Path, seed: int, *, overwrite: bool) -> GraphWorld:
    """Fit a graph world into a run's folder and write `graph.parquet` (every edge) and `swap.parquet`."""
    # Before a run that is to be overwritten is gone.
    fitting.check(panel, cfg)
    with Run(out).begun(panel, cfg, seed, overwrite=overwrite), console.console_observer() as observer:
        world = graph.fit(jax.random.key(seed), panel, cfg, seed=seed, folder=out / "checkpoints", observer=observer)
        world.save(out / "world")
    pairs, swapped = graph_page.edges(world, panel), world.swap(panel)
    write_parquet(out / "graph.parquet", pairs, dict(world.provenance))
    write_parquet(out / "swap.parquet", swapped, dict(world.provenance))
    chosen = pairs.query("edge == 1").filter(["sender", "receiver", "effect", "t", "q_value", "stability", "ar_cig"])
    for line in world.facts["warnings"]:
        console.warning(line)
    console.table(chosen, title=f"Edges chosen at {cfg.support.rate:.0%} false discoveries")
    console.table(swapped, title="The frozen decoders under other graphs: forecast error is no evidence of attribution")
    return world


def report(run: Path, world: GraphWorld, panel: Panel, *, title: str) -> None:
    """Write the page of a graph run, and the files behind it."""
    console.say(f"Report: {graph_page.write(run, world, panel, title=title)}")


def certify_run(out: Path, panel: Panel, world: Any, *, claims: Path | None, cfg: CertificateConfig) -> Certificate:
    """Certify a world on a panel, show what was found and write it as JSON, with its provenance.

    Raises:
        UserError: where the claims cannot be read or name columns that are not there.
    """
    try:
        declared = None if claims is None else tomllib.loads(claims.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{claims}: cannot be read ({error})") from error
    found = certifying.certify(world, panel, claims=declared, cfg=cfg)
    asked = answered(world, panel, claims=declared, cfg=cfg)
    write_json(out, certifying.summary(found) | {"provenance": asked})
    console.table(certifying.table(found, panel), title="Influence of each action, in sd of the outcome")
    console.say(
        f"Influence along the claims: {percent(found.along)}. Forecasting skill over no change: {percent(found.skill)}."
    )
    if math.isfinite(found.kept):
        console.say(f"With every unit given another's actions, {found.kept:.0%} of that skill stays.")
    for line in found.notes:
        console.warning(line)
    if found.bypass:
        console.error("attribution bypass: " + "; ".join(found.reasons))
    elif found.verdict == "no bypass":
        console.say(
            "No attribution bypass found: the answers follow the claims. Whether these are true, it does not tell."
        )
    else:
        console.warning("not testable: whether the answers bypass the claims cannot be told, for the reasons above")
    return found
