"""The commands of a media world: `wmjax fit media`, `roi`, `curves`, `shift` and `optimize`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wmjax.report.numbers import number
from wmjax.worlds.media.config import MediaConfig

FoldMedia = Annotated[MediaConfig, tyro.conf.arg(name="")]
RunFolder = Annotated[Path, tyro.conf.Positional]


def fit_media(
    *,
    panel: Path,
    schema: Path,
    out: Path,
    seed: int = 0,
    overwrite: bool = False,
    placebos: bool = True,
    head: Literal["response", "free"] | None = None,
    belief: tuple[str, ...] = (),
    creative: Path | None = None,
    cfg: FoldMedia = MediaConfig(),  # noqa: B008 - frozen
) -> None:
    """Fit a media world to spend and outcome, one series or many geos, and write what each channel was worth.

    Args:
        panel: long table, one row a unit and time: `.csv` or `.parquet`.
        schema: TOML file that says what the columns mean; the channels' spend are its actions.
        out: folder of the run; the same command goes on with a run that was killed.
        seed: seed of everything random.
        overwrite: begin anew where the folder holds another run.
        placebos: see, by a second and smaller fit, what copies of the channels that do nothing are given.
        head: form of the network's head, as `--network.head`; `free` is the published one.
        belief: of channels' returns before the data, each `channel=Distribution(numbers)`, any of NumPyro's by name: of
            a lift test `tv=Normal(estimate, standard error)`.
        creative: vectors of the channels' advertisements, for the free head: `.csv` or `.parquet`, a column `channel`
            and columns of numbers.
        cfg: how the world is fitted.
    """
    import jax

    from wmjax.core.errors import DivergedError, UserError
    from wmjax.core.keys import key_for
    from wmjax.data.readers import read_panel
    from wmjax.report import console
    from wmjax.report.run import Run
    from wmjax.worlds import media
    from wmjax.worlds.media import creatives, placebo

    cfg = _asked(cfg, head, belief)
    vectors = None if creative is None else creatives.load(creative)
    table = read_panel(panel, schema, min_units=1)
    with Run(out).begun(table, cfg, seed, overwrite=overwrite), console.console_observer() as observer:
        key, folder = jax.random.key(seed), out / "checkpoints"
        world = media.fit(key, table, cfg, seed=seed, creative=vectors, folder=folder, observer=observer)
        world.save(out / "world")
        if placebos:
            key, folder = key_for(jax.random.key(seed), "placebos"), out / "checkpoints" / "placebos"
            # The world stands without them.
            try:
                world = placebo.check(key, world, table, folder=folder, observer=observer)
                world.save(out / "world")
            except (UserError, DivergedError) as error:
                console.warning(f"no placebos: {error}")
    if "placebo" in world.facts:
        told = placebo.table(world)
        console.table(
            told, title="A check by a second, smaller fit: returns beside copies that do nothing, and the copies' own"
        )
        _write(out / "placebos.parquet", told, dict(world.provenance))
    roi(out)


def _asked(cfg: MediaConfig, head: Any, belief: tuple[str, ...]) -> MediaConfig:
    """Put what the command line has words of its own for into the configuration."""
    from wmjax.core.errors import UserError
    from wmjax.transformer import beliefs

    try:
        cfg = replace(cfg, roi=(*cfg.roi, *(beliefs.parse(told) for told in belief)))
    except ValueError as error:
        raise UserError(str(error)) from None
    return cfg if head is None else replace(cfg, network=replace(cfg.network, head=head))


def roi(run: RunFolder, *, out: Path | None = None, alpha: float = 0.1) -> None:
    """Say what each channel was worth: contribution, ROI, marginal ROI, share, by geo and in all, with intervals.

    Args:
        run: folder of a finished run of a media world.
        out: Parquet file; by default `roi.parquet` in the run's folder.
        alpha: intervals hold with probability 1 - alpha.
    """
    from wmjax.report import console
    from wmjax.report.run import Run, answered
    from wmjax.worlds.media import tables

    world, panel = Run(run).open("roi")
    found = tables.roi(world.attribute(panel, alpha=alpha))
    _warn(world)
    console.table(found.query("geo == 'all'").drop(columns="geo"), title="What each channel was worth")
    _write(out or run / "roi.parquet", found, answered(world, panel, alpha=alpha))


def curves(run: RunFolder, *, out: Path | None = None, alpha: float = 0.1) -> None:
    """Trace each channel's response over multiples of its spend from 0 to 2, with intervals.

    Args:
        run: folder of a finished run of a media world.
        out: Parquet file; by default `curves.parquet` in the run's folder.
        alpha: intervals hold with probability 1 - alpha.
    """
    from wmjax.report.run import Run, answered
    from wmjax.worlds.media import tables

    world, panel = Run(run).open("curves")
    _warn(world)
    found = tables.curves(world.attribute(panel, alpha=alpha))
    _write(out or run / "curves.parquet", found, answered(world, panel, alpha=alpha))


def shift(run: RunFolder, *, source: str, target: str, share: float = 0.1, alpha: float = 0.1) -> None:
    """Say what moving a share of one channel's spend to another would have changed.

    Args:
        run: folder of a finished run of a media world.
        source: the channel that gives.
        target: the channel that takes.
        share: of the source's spend in every period.
        alpha: the interval holds with probability 1 - alpha.
    """
    from wmjax.core.files import finite, write_json
    from wmjax.report import console
    from wmjax.report.run import Run, answered

    world, panel = Run(run).open("shift")
    found = world.shift(panel, source, target, share, alpha=alpha)
    _warn(world)
    path = run / f"shift_{source}_{target}.json"
    console.say(
        f"{number(found['moved'])} moved from {source} to {target}, over all {panel.num_times} periods: "
        f"{_gain(world, panel, found, alpha)}: {path}"
    )
    asked = answered(world, panel, source=source, target=target, share=share, alpha=alpha)
    numbers = {name: finite(value) for name, value in found.items()}
    write_json(path, numbers | {"provenance": asked})


def optimize(
    run: RunFolder,
    *,
    budget: float | None = None,
    low: float = 0.5,
    high: float = 1.5,
    out: Path | None = None,
    alpha: float = 0.1,
) -> None:
    """Split a budget over the channels for the largest expected outcome.

    Args:
        run: folder of a finished run of a media world.
        budget: spend in all; as it was if not given.
        low: least multiple of each channel's spend.
        high: largest multiple of each channel's spend.
        out: Parquet file; by default `budget.parquet` in the run's folder.
        alpha: the gain's interval holds with probability 1 - alpha.
    """
    from wmjax.report import console
    from wmjax.report.run import Run, answered

    world, panel = Run(run).open("optimize")
    table, numbers = world.optimize_budget(panel, budget=budget, bounds=(low, high), alpha=alpha)
    _warn(world)
    title = f"The best split, each channel from {low:g} to {high:g} times its spend (bound: at one of these ends)"
    console.table(table, title=title)
    if table["extrapolated"].any():
        console.say("extrapolated: in some period more than the largest spend that was learnt from")
    spent, planned = table["spend"].sum(), table["new_spend"].sum()
    cost = (
        "at the same spend"
        if math.isclose(spent, planned, rel_tol=1e-6)
        else f"at {number(planned - spent, sign=True)} of spend"
    )
    told = _gain(world, panel, numbers | {"mean": numbers["gain"]}, alpha)
    console.say(f"Over what was done, {cost}: {told}, as if it had not been chosen")
    if numbers["lo"] <= 0 <= numbers["hi"]:
        console.warning("the interval of the gain holds 0: the data do not tell this split from what was done")
    console.say(
        f"Expected in all: {number(numbers['start'])} by the split as it was, {number(numbers['value'])} by this one; "
        f"one more of budget would bring {number(numbers['price'])} (optimality residual {numbers['residual']:.2g})"
    )
    asked = {"budget": budget, "low": low, "high": high, "alpha": alpha}
    _write(out or run / "budget.parquet", table, answered(world, panel, **asked, **numbers))


def report(run: Path, world: Any, panel: Any, *, title: str, alpha: float) -> None:
    """Write the page of a media run, and the files behind it."""
    from wmjax.report import console, media

    path = media.write(run, world, panel, title=title, alpha=alpha)
    _warn(world)
    console.say(f"Report: {path}")


def _gain(world: Any, panel: Any, found: Any, alpha: float) -> str:
    """Say what a plan changes, in the outcome's name, with its interval."""
    from wmjax.worlds.media import prepare

    ends = " to ".join(number(found[end], sign=True) for end in ("lo", "hi"))
    return f"{number(found['mean'], sign=True)} {prepare.outcome_name(panel, world.cfg)} ({1 - alpha:.0%} {ends})"


def _warn(world: Any) -> None:
    """Say what no answer of the world should be read without."""
    from wmjax.report import console

    for line in world.warnings():
        console.warning(line)


def _write(path: Path, table: Any, provenance: dict[str, Any]) -> None:
    from wmjax.core.files import write_parquet
    from wmjax.report import console

    write_parquet(path, table, provenance)
    console.say(f"{len(table):,} rows: {path}")
