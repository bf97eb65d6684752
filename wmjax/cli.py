"""The `wmjax` command. Every option of a fit is a field of a frozen config, so it is documented once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wmjax.core.errors import DivergedError, UserError
from wmjax.evaluate.certificate import CertificateConfig
from wmjax.report import media_commands, sweep_commands
from wmjax.worlds.consumer.config import DEMO, SMOKE, ConsumerConfig
from wmjax.worlds.graph.config import GraphConfig

if TYPE_CHECKING:
    from wmjax.data.panel import Panel

WORLDS = ("consumer", "graph", "media")
Fold = Annotated[ConsumerConfig, tyro.conf.arg(name="")]
FoldGraph = Annotated[GraphConfig, tyro.conf.arg(name="")]
FoldCertificate = Annotated[CertificateConfig, tyro.conf.arg(name="")]
RunFolder = Annotated[Path, tyro.conf.Positional]
TITLE = "What would have happened under another plan?"
TARGETED = "Campaigns were targeted, not randomised: households were chosen by what they had bought before."


def demo(
    *,
    out: Path = Path("runs/demo"),
    seed: int = 0,
    size: Literal["full", "smoke"] = "full",
    overwrite: bool = False,
) -> None:
    """Fit a world to 2,469 households' grocery year and say what its campaigns changed, for whom.

    Args:
        out: folder of the run; the same command goes on with a run that was killed.
        seed: seed of everything random.
        size: `smoke` takes 240 households, two members and two epochs, only to see that everything runs.
        overwrite: begin anew where the folder holds another run.
    """
    from wmjax.data import complete_journey
    from wmjax.report import console

    console.heading("Complete Journey: a grocery year of 2,469 households")
    panel = complete_journey.load_panel(first_week=9)
    if size == "smoke":
        panel = panel.select(units=panel.units[::10])
    _fit(
        panel,
        DEMO if size == "full" else SMOKE,
        out,
        seed,
        overwrite,
        targeted=TARGETED,
        title="What did the campaigns change?",
    )


def fit_consumer(
    *,
    panel: Path,
    schema: Path,
    out: Path,
    seed: int = 0,
    overwrite: bool = False,
    cfg: Fold = ConsumerConfig(),  # noqa: B008 - frozen
) -> None:
    """Fit a consumer world to a table, judge it on its last periods, and write every answer and a report.

    Args:
        panel: long table, one row a unit and time: `.csv` or `.parquet`.
        schema: TOML file that says what the columns mean.
        out: folder of the run; the same command goes on with a run that was killed.
        seed: seed of everything random.
        overwrite: begin anew where the folder holds another run.
        cfg: how the world is fitted.
    """
    from wmjax.data.readers import read_panel

    _fit(read_panel(panel, schema), cfg, out, seed, overwrite)


def predict(run: RunFolder, *, out: Path | None = None, panel: Path | None = None, alpha: float = 0.1) -> None:
    """Predict every outcome of every row, with intervals.

    Args:
        run: folder of a finished run.
        out: Parquet file; by default `predictions.parquet` in the run's folder.
        panel: another table of the same columns, which needs `--out`; by default the run's own.
        alpha: intervals hold with probability 1 - alpha.
    """
    from wmjax.report.run import Run
    from wmjax.worlds.consumer import tables

    path = _place(run, "predictions.parquet", out, panel)
    world, table = Run(run).open("predict", panel)
    _write(path, tables.predictions(world, table, alpha=alpha), world, table, alpha=alpha)


def effect(
    run: RunFolder,
    *,
    action: str,
    t0: float | None = None,
    t1: float | None = None,
    out: Path | None = None,
    panel: Path | None = None,
    by: str | None = None,
    periods: Literal["test", "all"] | None = None,
    alpha: float = 0.1,
) -> None:
    """Say what `action = t1` would have changed against `action = t0`, for every row, and print the average.

    Args:
        run: folder of a finished run.
        action: the action's column.
        t0: the baseline value; by default that of the run's report: 0 of a binary action, a usual low one of any other.
        t1: the value asked about; by default that of the run's report: 1 of a binary action, a usual high one of any
            other.
        out: Parquet file of the effects by row; by default `effect_ACTION.parquet` in the run's folder.
        panel: another table of the same columns, which needs `--out`; by default the run's own.
        by: a static column, to average by its levels.
        periods: the periods to answer for: those of the run's test dates, or all; by default `test` for the run's own
            panel and `all` for another one.
        alpha: intervals hold with probability 1 - alpha.
    """
    from wmjax.report import console, consumer, frames
    from wmjax.report.run import Run
    from wmjax.worlds.consumer import support, tables
    from wmjax.worlds.consumer.tables import Question

    path = _place(run, f"effect_{action}.parquet", out, panel)
    world, data = Run(run).open("effect", panel)
    t0, t1 = Run(run).contrast(world, action, t0, t1)
    asked = periods or ("test" if panel is None else "all")
    times = world.periods(data) if asked == "test" else None
    every = world.ate_by(data, action, t0, t1, by=(None,) if by is None else (None, by), alpha=alpha, times=times)
    average = frames.where(every, frames.equal(every, "segment", by or "all"))
    found = tables.effects(world, data, Question(action=action, t0=t0, t1=t1), times=times, alpha=alpha)
    # Support is asked of the rows themselves: the table has a row an outcome, and none where the effect is NaN.
    rows = world.observed(data, times)
    supported = world.supported(rows, action, t0, t1)
    for line in support.circumstances(world.schema.column(action), rows.actions[:, data.action_index(action)], t1):
        console.say(line)
    for line in world.warnings_for(action, supported):
        console.warning(line)
    if not supported.any():
        console.warning(f"{action}: no row is supported; the average is over all rows, not to be believed")
    elif lost := average.loc[average["supported_share"] == 0, "level"].drop_duplicates().tolist():
        named = ", ".join(map(str, lost[:5])) + (", .." if len(lost) > 5 else "")
        console.warning(f"{action}: no row is supported at {by} {named}; that average is over all rows of it")
    console.table(consumer.averages(average, data), title=f"{action}: {t1:g} instead of {t0:g}")
    for line in consumer.hidden_causes(average):
        console.say(line)
    if world.members < consumer.ENOUGH:
        console.say(consumer.few_members(world.members))
    _write(path, found, world, data, action=action, t0=t0, t1=t1, periods=asked, alpha=alpha)


def plausibility(run: RunFolder, *, out: Path | None = None, panel: Path | None = None) -> None:
    """Score how well every history agrees with those the world was trained on.

    Args:
        run: folder of a finished run.
        out: Parquet file; by default `plausibility.parquet` in the run's folder.
        panel: another table of the same columns, which needs `--out`; by default the run's own.
    """
    from wmjax.report.run import Run
    from wmjax.worlds.consumer import tables

    path = _place(run, "plausibility.parquet", out, panel)
    world, table = Run(run).open("plausibility", panel)
    _write(path, tables.plausibility(world, table), world, table)


def traits(
    run: RunFolder,
    *,
    action: str | None = None,
    t0: float | None = None,
    t1: float | None = None,
    out: Path | None = None,
    panel: Path | None = None,
    alpha: float = 0.1,
) -> None:
    """Say what each unit's whole past tells of its level and responsiveness, and with `--action` of its own effect.

    Args:
        run: folder of a finished run; what is fitted on its panel is kept there in `traits/`.
        action: an action; then its effect in every row, from the unit's past before that row, is written too, to
            `traits_ACTION.parquet` beside the other file.
        t0: the baseline value; by default that of the run's report: 0 of a binary action, a usual low one of any other.
        t1: the value asked about; by default that of the run's report: 1 of a binary action, a usual high one of any
            other.
        out: Parquet file of the units; by default `traits.parquet` in the run's folder.
        panel: another table of the same columns, which needs `--out`; by default the run's own. A longer table of the
            same units moves them on.
        alpha: intervals hold with probability 1 - alpha.
    """
    from wmjax.report import console, traits
    from wmjax.report.run import Run
    from wmjax.worlds.consumer import support

    path = _place(run, "traits.parquet", out, panel)
    world, data = Run(run).open("traits", panel)
    ends = None if action is None else Run(run).contrast(world, action, t0, t1)
    own = data if panel is None else Run(run).panel(world.levels)
    with console.console_observer() as observer:
        found = traits.fitted(run / "traits", world, own, observer=observer)
    console.table(traits.comparison(found), title="Log loss of validation periods, lower is better")
    _write(path, traits.units(found, data), world, data)
    if action is not None and ends is not None:
        t0, t1 = ends
        effects = found.effect_interval(data, action, t0, t1, alpha=alpha)
        values = world.observed(data).actions[:, data.action_index(action)]
        for line in support.circumstances(world.schema.column(action), values, t1):
            console.say(line)
        for line in effects.attrs["warnings"]:
            console.warning(line)
        if bool(effects.supported.any()):
            told = f"{action}: {t1:g} instead of {t0:g}, in each row from the unit's past"
            console.table(traits.spread(effects), title=told)
            console.say(traits.MEANING)
        rows = traits.effects(effects, data)
        _write(path.with_name(f"traits_{action}.parquet"), rows, world, data, action=action, t0=t0, t1=t1, alpha=alpha)


def report(run: RunFolder, *, alpha: float = 0.1, title: str = "") -> None:
    """Answer every question of the report anew and write it, with the files behind it.

    Args:
        run: folder of a finished run.
        alpha: intervals hold with probability 1 - alpha; a graph run has none.
        title: heading of the page; the question that it answers if not given.
    """
    from wmjax.report import graph
    from wmjax.report.run import Run

    (world, panel), asked = Run(run).open("report"), Run(run).asked
    if Run(run).kind == "graph":
        return graph.report(run, world, panel, title=title or "What acts on what?")
    title = title or TITLE
    if Run(run).kind == "media":
        return media_commands.report(run, world, panel, title=title, alpha=alpha)
    return _report(run, world, panel, seed=asked["seed"], targeted=asked.get("targeted", ""), title=title, alpha=alpha)


def fit_graph(
    *,
    panel: Path,
    schema: Path,
    out: Path,
    seed: int = 0,
    overwrite: bool = False,
    cfg: FoldGraph = GraphConfig(),  # noqa: B008 - frozen
) -> None:
    """Choose the graph between channels and outcomes from data alone, and fit decoders that may only talk along it.

    Args:
        panel: long table, one row a unit and time: `.csv` or `.parquet`.
        schema: TOML file that says what the columns mean; actions and outcomes are the nodes.
        out: folder of the run; the same command goes on with a run that was killed.
        seed: seed of everything random.
        overwrite: begin anew where the folder holds another run.
        cfg: how the world is fitted.
    """
    from wmjax.data.readers import read_panel
    from wmjax.report import graph

    graph.fit_run(read_panel(panel, schema), cfg, out, seed, overwrite=overwrite)


def certify(
    run: RunFolder,
    *,
    claims: Path | None = None,
    out: Path | None = None,
    panel: Path | None = None,
    cfg: FoldCertificate = CertificateConfig(),  # noqa: B008 - frozen
) -> None:
    """Say whether a world of any kind routes its what-if answers along what it claims; exit 1 on attribution bypass.

    Args:
        run: folder of a finished run.
        claims: TOML file, an action and the outcomes that it may reach a line: `tv = ["sales"]`; by default the graph
            world's own claims, and for other worlds that every action may reach every outcome.
        out: JSON file; by default `certificate.json` in the run's folder.
        panel: another table of the same columns, which needs `--out`; by default the run's own.
        cfg: how it is tested.
    """
    from wmjax.report import graph
    from wmjax.report.run import Run

    path = _place(run, "certificate.json", out, panel)
    world, table = Run(run).open("certify", panel)
    if graph.certify_run(path, table, world, claims=claims, cfg=cfg).bypass:
        raise SystemExit(1)


COMMANDS = {
    "demo": demo,
    "fit consumer": fit_consumer,
    "fit media": media_commands.fit_media,
    "roi": media_commands.roi,
    "curves": media_commands.curves,
    "shift": media_commands.shift,
    "optimize": media_commands.optimize,
    "fit graph": fit_graph,
    "certify": certify,
    "predict": predict,
    "effect": effect,
    "plausibility": plausibility,
    "traits": traits,
    "report": report,
    "sweep": sweep_commands.sweep,
    "best": sweep_commands.best,
    "policy": sweep_commands.policy,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's error is one line and exit code 2, a diverged fit one line and exit code 3.

    A file that cannot be read or written counts as the user's error.
    """
    from wmjax.report import console

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _parse(words)()
    except UserError as error:
        console.error(str(error))
        raise SystemExit(2) from None
    except OSError as error:
        console.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise SystemExit(2) from None
    except DivergedError as error:
        console.error(str(error))
        raise SystemExit(3) from None
    except KeyboardInterrupt:
        console.error("stopped; the same command goes on from the last checkpoint")
        raise SystemExit(130) from None


def _parse(words: list[str]) -> partial[None]:
    """Read a command line into a call, so that what an option's own rule refuses is told apart from a fault within.

    Raises:
        UserError: options out of their range; `fit` of no world.
    """
    if words[:1] == ["fit"] and not {*words[1:2]} & {*WORLDS}:
        raise UserError(f"say what to fit: wmjax fit {', wmjax fit '.join(WORLDS)}; each with --help says how")
    words = [" ".join(words[:2]), *words[2:]] if words[:1] == ["fit"] else words

    def later(command: Callable[..., None]) -> Callable[..., partial[None]]:
        return wraps(command)(lambda *args, **options: partial(command, *args, **options))

    commands = {name: later(command) for name, command in COMMANDS.items()}
    try:
        call = tyro.extras.subcommand_cli_from_dict(commands, prog="wmjax", description=__doc__, args=words)
    except ValueError as error:
        raise UserError(str(error)) from None
    alpha = call.keywords.get("alpha", 0.1)
    if not 0 < alpha < 1:
        raise UserError(f"--alpha is {alpha}, must lie in (0, 1)")
    return call


def _fit(
    panel: Panel,
    cfg: ConsumerConfig,
    out: Path,
    seed: int,
    overwrite: bool,
    *,
    targeted: str = "",
    title: str = TITLE,
) -> None:
    import jax

    from wmjax.core import devices
    from wmjax.report import console
    from wmjax.report.run import Run
    from wmjax.worlds import consumer

    devices.use_cores()
    console.say(
        f"{panel.num_units:,} units, {panel.num_times} periods, {int(panel.arrays.mask.sum()):,} rows; "
        f"actions {', '.join(panel.action_names)}; outcomes {', '.join(panel.outcome_names)}"
    )
    begun = Run(out).begun(panel, cfg, seed, overwrite=overwrite, targeted=targeted)
    with begun, console.console_observer() as observer:
        world = consumer.fit(jax.random.key(seed), panel, cfg, seed=seed, folder=out / "checkpoints", observer=observer)
        world.save(out / "world")
    _report(out, world, panel, seed=seed, targeted=targeted, title=title, alpha=0.1)


def _report(out: Path, world: Any, panel: Panel, *, seed: int, targeted: str, title: str, alpha: float) -> None:
    import jax

    from wmjax.report import console, consumer
    from wmjax.worlds.consumer import tables

    with console.console_observer() as observer:
        answers = consumer.answer(
            world,
            panel,
            tables.default_questions(panel, world.periods(panel, "train")),
            key=jax.random.key(seed),
            targeted=targeted,
            alpha=alpha,
            observer=observer,
        )
    summary = consumer.write(out, world, panel, answers, title=title, alpha=alpha)
    for line in summary["warnings"]:
        console.warning(line)
    console.table(consumer.headline(summary), title="Average effects in the test periods")
    console.say(f"Report: {out / 'report.html'}")


def _place(run: Path, name: str, out: Path | None, panel: Path | None) -> Path:
    """Say where an answer goes: the run's own files are of the run's own panel.

    Raises:
        UserError: another panel without a place for its answer.
    """
    if out is None and panel is not None:
        raise UserError(f"--panel asks about another table; name a file with --out, {run / name} is the run's own")
    from wmjax.core import files

    path = out or run / name
    return files.parquet(path) if name.endswith(".parquet") else path


def _write(path: Path, table: Any, world: Any, panel: Panel, **question: Any) -> None:
    from wmjax.core.files import write_parquet
    from wmjax.report import console
    from wmjax.report.run import answered

    write_parquet(path, table, answered(world, panel, **question))
    console.say(f"{len(table):,} rows: {path}")


if __name__ == "__main__":
    main()
