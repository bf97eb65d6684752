"""The commands of a media world: `wmjax fit media`, `roi`, `curves`, `shift` and `optimize`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
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
    each: bool = False,
    head: Literal["response", "free"] | None = None,
    belief: tuple[str, ...] = (),
    creative: Path | None = None,
    cfg: FoldMedia = MediaConfig(),  # noqa: B008 - frozen
) -> None:
    """Fit a media world to spend and outcome, one series or many geos, and write what each channel was worth.

    Args:
        panel: long table, one row a unit and time, or, where the schema says `long`, one row a unit, time and variable:
            `.csv` or `.parquet`.
        schema: TOML file that says what the columns mean; the channels' spend are its actions.
        out: folder of the run; the same command goes on with a run that was killed.
        seed: seed of everything random.
        overwrite: begin anew where the folder holds another run.
        placebos: see, by a second and smaller fit, what copies of the channels that do nothing are given; not done
            with `--each`.
        each: fit a world to each unit, as a series of its own, all in one program; `roi.parquet` then tells every
            unit's returns, `fits.parquet` how well each was fitted, and `worlds` holds the worlds, for `wmjax.load`.
        head: form of the network's head, as `--network.head`; `free` is the published one.
        belief: of channels' returns before the data, each `channel=Distribution(numbers)`, any of NumPyro's by name: of
            a lift test `tv=Normal(estimate, standard error)`.
        creative: vectors of the channels' advertisements, for the free head: `.csv` or `.parquet`, a column `channel`
            and columns of numbers.
        cfg: how the world is fitted.
    """
    import jax

    from wmjax.core.errors import DivergedError, UserError
    from wmjax.core.files import write_parquet
    from wmjax.core.keys import key_for
    from wmjax.data.readers import read_panel
    from wmjax.report import console
    from wmjax.report.run import Run
    from wmjax.worlds import media
    from wmjax.worlds.media import creatives, placebo

    cfg = _asked(cfg, head, belief)
    vectors = None if creative is None else creatives.load(creative)
    table = read_panel(panel, schema, min_units=1)
    cfg = cfg.settled(alone=table.num_units == 1 and not each)
    if each:
        if creative is not None:
            raise UserError("--each fits every unit a world of its own, without --creative")
        _fit_each(table, cfg, out, seed, overwrite)
        return
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
        write_parquet(out / "placebos.parquet", told, dict(world.provenance))
    roi(out)


def _fit_each(table: Any, cfg: MediaConfig, out: Path, seed: int, overwrite: bool) -> None:
    """Fit a world a unit, keep them all, and write what each channel was worth in each."""
    from urllib.parse import quote

    import jax

    from wmjax.report import console
    from wmjax.report.run import Run
    from wmjax.worlds import media

    with Run(out).begun(table, cfg, seed, overwrite=overwrite), console.console_observer() as observer:
        key, folder = jax.random.key(seed), out / "checkpoints"
        found = media.fit_each(key, table, cfg, seed=seed, folder=folder, observer=observer)
        for unit, world in found.worlds.items():
            world.save(out / "worlds" / quote(str(unit), safe=""))
    for unit, words in found.failed.items():
        console.warning(f"{unit}: no world: {words}")
    about = dict(next(iter(found.worlds.values())).provenance) | {"data_fingerprint": table.fingerprint}
    returns = found.roi(table)
    _tell(out / "fits.parquet", found.table(), about)
    console.table(_spread(returns), title=f"Returns by channel, over the worlds of {len(found.worlds):,} units")
    _tell(out / "roi.parquet", returns, about)


def _spread(returns: Any) -> Any:
    """Say how ROI goes over units: the least, the quartiles and the most of their means."""
    own = returns[returns["quantity"] == "roi"]
    told = own.groupby("channel")["mean"].quantile([0.0, 0.25, 0.5, 0.75, 1.0]).unstack()
    return told.set_axis(["least", "quarter", "half", "three quarters", "most"], axis=1).reset_index()


def _asked(cfg: MediaConfig, head: Any, belief: tuple[str, ...]) -> MediaConfig:
    """Put what the command line has words of its own for into the configuration."""
    from wmjax.core.errors import UserError
    from wmjax.transformer import beliefs

    for told in belief:
        try:
            cfg = replace(cfg, roi=(*cfg.roi, beliefs.parse(told)))
        except ValueError as error:
            raise UserError(f"--belief {told!r}: {error}") from None
    return cfg if head is None else replace(cfg, network=replace(cfg.network, head=head))


@dataclass(frozen=True, kw_only=True)
class Question:
    """Whose spend is asked about, and what counts.

    Attributes:
        start: position of the first period whose spend is asked about, counted from 0.
        periods: how many; by default all from there on, held-out ones too.
        carry: periods after them in which the outcome still counts; by default as long as the world's carry-over.
        alpha: intervals hold with probability 1 - alpha.
    """

    start: int = 0
    periods: int | None = None
    carry: int | None = None
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha is {self.alpha}, must lie in (0, 1)")

    def attribute(self, world: Any, panel: Any) -> tuple[Any, dict[str, Any]]:
        """Attribute the outcome; give the answer, and what was asked in numbers and words (`window`).

        Raises:
            UserError: periods that the table does not have.
        """
        from wmjax.core.errors import UserError

        times = _times(panel, self.start, self.periods)
        if self.carry is not None and self.carry < 0:
            raise UserError(f"--carry is {self.carry}, must be 0 or more")
        carry, left = world.cfg.network.carry if self.carry is None else self.carry, panel.num_times - times.stop
        ends = f"{left} of {carry} periods later, where the table ends" if left < carry else f"{carry} periods later"
        words = f"spend of {_dates(panel, times)}, and what it did in them" + (f" and {ends}" if carry else "")
        count = times.stop - times.start
        told = {"start": self.start, "periods": count, "carry": self.carry, "alpha": self.alpha, "window": words}
        return world.attribute(panel, times=times, carry=self.carry, alpha=self.alpha), told


def _times(panel: Any, start: int, periods: int | None) -> slice:
    """Give the periods that a question is about; by default all from the first one on.

    Raises:
        UserError: periods that the table does not have.
    """
    from wmjax.core.errors import UserError

    left = panel.num_times - start
    count = left if periods is None else periods
    if not (start >= 0 and 1 <= count <= left):
        words = f"--start {start}" + ("" if periods is None else f" --periods {periods}")
        mend = f"ask for 1 to {left} periods" if 0 <= start < panel.num_times else "start at one of them"
        raise UserError(f"{words}: the table has periods 0 to {panel.num_times - 1}; {mend}")
    return slice(start, start + count)


def _dates(panel: Any, times: slice) -> str:
    return " to ".join(str(panel.times[at])[:10] for at in (times.start, times.stop - 1))


FoldQuestion = Annotated[Question, tyro.conf.arg(name="")]


def roi(run: RunFolder, *, out: Path | None = None, question: FoldQuestion = Question()) -> None:
    """Say what each channel was worth: contribution, ROI, marginal ROI, share, by geo and in all, with intervals.

    Args:
        run: folder of a finished run of a media world.
        out: `.parquet` or `.json` file; by default `roi.parquet` in the run's folder.
        question: which periods, and how sure.
    """
    from wmjax.report import console
    from wmjax.worlds.media import tables

    path, world, panel = _opened("roi", run, out, "roi.parquet")
    asked, told = question.attribute(world, panel)
    found, warned = tables.roi(asked), asked.attrs["warnings"]
    _warn(warned)
    whole = found.query("geo == 'all'").drop(columns="geo")
    console.table(whole, title=f"What each channel was worth: {told['window']}")
    if bool(np.any(whole["extrapolated"].to_numpy())):
        console.say("extrapolated: against no spend, of which there is no period that was learnt from")
    _write(path, found, world, panel, told, warnings=warned)


def curves(run: RunFolder, *, out: Path | None = None, question: FoldQuestion = Question()) -> None:
    """Trace each channel's response, and its return, over multiples of its spend from 0 to 2, with intervals.

    Args:
        run: folder of a finished run of a media world.
        out: `.parquet` or `.json` file; by default `curves.parquet` in the run's folder.
        question: which periods, and how sure.
    """
    from wmjax.report import console
    from wmjax.worlds.media import tables

    path, world, panel = _opened("curves", run, out, "curves.parquet")
    asked, told = question.attribute(world, panel)
    _warn(asked.attrs["warnings"])
    console.say(f"Asked: {told['window']}")
    _write(path, tables.curves(asked), world, panel, told, warnings=asked.attrs["warnings"])


def shift(
    run: RunFolder,
    *,
    source: str,
    target: str,
    share: float = 0.1,
    start: int = 0,
    periods: int | None = None,
    out: Path | None = None,
    alpha: float = 0.1,
) -> None:
    """Say what moving a share of one channel's spend to another would have changed.

    Args:
        run: folder of a finished run of a media world.
        source: the channel that gives.
        target: the channel that takes.
        share: of the source's spend in every period.
        start: position of the first period whose spend is moved, counted from 0.
        periods: how many; by default all from there on. What spend does later counts too, as far as it is carried over.
        out: `.json` or `.parquet` file; by default `shift_SOURCE_TARGET.json` in the run's folder.
        alpha: the interval holds with probability 1 - alpha.
    """
    from wmjax.report import console
    from wmjax.worlds.media import planning

    path, world, panel = _opened("shift", run, out, f"shift_{source}_{target}.json")
    times = _times(panel, start, periods)
    table, found = planning.shift(world, panel, source, target, share, times=times, alpha=alpha)
    found["warnings"] = [*world.warnings(), *found["warnings"]]
    _warn(found["warnings"])
    console.say(
        f"{number(found['moved'])} moved from {source} to {target}, of {_dates(panel, times)}: "
        f"{_gain(world, panel, found, alpha)}"
    )
    question = {"source": source, "target": target, "share": share, "start": start, "periods": periods, "alpha": alpha}
    _write(path, table, world, panel, question, channel="all", geo="all", **found)


def optimize(
    run: RunFolder,
    *,
    budget: float | None = None,
    low: float = 0.5,
    high: float = 1.5,
    bounds: str = "",
    money: bool = False,
    move: Literal["channels", "within", "between"] = "channels",
    start: int = 0,
    periods: int | None = None,
    out: Path | None = None,
    alpha: float = 0.1,
) -> None:
    """Split a budget over the channels for the largest expected outcome.

    Each spend is multiplied by one number in all periods asked for; `wmjax shift`, which moves money period by period,
    may win more.

    Args:
        run: folder of a finished run of a media world.
        budget: spend in all; as it was if not given.
        low: least multiple of each channel's spend.
        high: largest multiple of each channel's spend.
        bounds: own bounds, `"tv=0.5:1.5 search@north=0:2"`, or a `.csv` or `.parquet` file of channel, geo, low, high;
            channels that it leaves out keep `--low` and `--high`.
        money: `--bounds` are amounts of spend, not multiples of it.
        move: between `channels`, each keeping its split over geos; `within` each geo, whose own total stays; or
            `between` channels and geos.
        start: position of the first period whose spend may change, counted from 0.
        periods: how many; by default all from there on. What spend does later counts too, as far as it is carried over.
        out: `.parquet` or `.json` file; by default `budget.parquet` in the run's folder.
        alpha: the gain's interval holds with probability 1 - alpha.
    """
    from wmjax.core.errors import UserError
    from wmjax.report import console
    from wmjax.worlds.media import budget as budgets

    if money and not bounds:
        raise UserError("--money says that --bounds are amounts, and there are none; give --bounds")
    given = budgets.read_bounds(bounds) if bounds else (low, high)
    path, world, panel = _opened("optimize", run, out, "budget.parquet")
    times = _times(panel, start, periods)
    table, numbers = world.optimize_budget(
        panel, budget=budget, bounds=given, move=move, money=money, rest=(low, high), times=times, alpha=alpha
    )
    warned = world.warnings()
    _warn(warned)
    told = "its own bounds" if bounds else f"{low:g} to {high:g} times its spend"
    shown = table[table["geo"] == "all"].drop(columns=["geo", "unit"])
    console.table(shown, title=f"The best split, each channel within {told} (bound: at which end of them)")
    at = [f"{r.channel} in {r.geo} ({r.bound})" for r in table.itertuples() if r.bound and r.geo != "all"]
    if at:
        console.say(f"At a bound: {', '.join(at[:20])}" + (f" and {len(at) - 20} more" if len(at) > 20 else ""))
    if table["extrapolated"].any():
        console.say("extrapolated: in some period less than the least or more than the largest spend learnt from")
    spent, planned = (shown[shown["channel"] == "all"][name].item() for name in ("spend", "new_spend"))
    cost = (
        "at the same spend"
        if math.isclose(spent, planned, rel_tol=1e-6)
        else f"at {number(planned - spent, sign=True)} of spend"
    )
    gain = _gain(world, panel, numbers | {"mean": numbers["gain"]}, alpha)
    console.say(f"Over what was done, of {_dates(panel, times)}, {cost}: {gain}, as if it had not been chosen")
    if numbers["lo"] <= 0 <= numbers["hi"]:
        warned = [*warned, "the interval of the gain holds 0: the data do not tell this split from what was done"]
        console.warning(warned[-1])
    console.say(
        f"Expected in all: {number(numbers['start'])} by the old split, scaled to the budget and moved into the "
        f"bounds, {number(numbers['value'])} by this one; "
        f"one more of budget would bring {number(numbers['price'])} (optimality residual {numbers['residual']:.2g})"
    )
    question = {"budget": budget, "low": low, "high": high, "bounds": bounds, "money": money, "move": move}
    question |= {"start": start, "periods": periods, "alpha": alpha}
    _write(path, table, world, panel, question, **numbers, warnings=warned)


def report(run: Path, world: Any, panel: Any, *, title: str, alpha: float) -> None:
    """Write the page of a media run, and the files behind it."""
    from wmjax.report import console, media

    path = media.write(run, world, panel, title=title, alpha=alpha)
    _warn(world.warnings())
    console.say(f"Report: {path}")


def _opened(command: str, run: Path, out: Path | None, name: str) -> tuple[Path, Any, Any]:
    """Say where an answer goes, and open what is asked and what is asked about.

    Raises:
        UserError: a file that is neither Parquet nor JSON, or a run that does not answer the command.
    """
    from wmjax.core.files import table_place
    from wmjax.report.run import Run

    return table_place(out or run / name), *Run(run).open(command)


def _gain(world: Any, panel: Any, found: Any, alpha: float) -> str:
    """Say what a plan changes, in the outcome's name, with its interval."""
    from wmjax.worlds.media import prepare

    ends = " to ".join(number(found[end], sign=True) for end in ("lo", "hi"))
    return f"{number(found['mean'], sign=True)} {prepare.outcome_name(panel, world.cfg)} ({1 - alpha:.0%} {ends})"


def _warn(lines: list[str]) -> None:
    """Say what no answer of the world should be read without."""
    from wmjax.report import console

    for line in lines:
        console.warning(line)


def _tell(path: Path, table: Any, about: dict[str, Any]) -> None:
    from wmjax.core.files import write_table
    from wmjax.report import console

    write_table(path, table, about)
    console.say(f"{len(table):,} rows: {path}")


def _write(path: Path, table: Any, world: Any, panel: Any, question: dict[str, Any], **told: Any) -> None:
    from wmjax.core.files import write_table
    from wmjax.report import console
    from wmjax.report.run import answered

    write_table(path, table, answered(world, panel, **question), **told)
    console.say(f"{len(table):,} rows: {path}")
