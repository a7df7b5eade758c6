"""``p2psip simulate``: overlays of thousands of nodes in one process; needs no node."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..config.document import CannotComply
from ..simulator import network
from ..simulator.interfaces import IScenario, Option
from ..simulator.overlay import Setting, Unsettled
from ..simulator.plots import NoMatplotlib, require_matplotlib, write_plots
from ..simulator.report import combined, report_of, write_csv
from ..simulator.run import Run
from ..simulator.scenarios import installed
from ..simulator.topologies import topology_named
from .output import print_table

MOST_NODES = 1_000_000


class _Typed(click.ParamType[Any]):
    """What an `Option` of a scenario takes."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _checked(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """Refuse what cannot be parsed, and keep it as it was typed."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


class _Scenarios(click.Group):
    """A command for each scenario that is installed, looked for only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(scenario.name for scenario in installed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = next((scenario for scenario in installed() if scenario.name == cmd_name), None)
        return None if found is None else _command(found)


@click.group(cls=_Scenarios, subcommand_metavar="SCENARIO [OPTIONS]")
def simulate() -> None:
    """Simulate an overlay of many nodes in this process.

    The nodes are the very same as in production; time, links and signatures are simulated. The same seed brings about
    the same run, message by message. `p2psip simulate SCENARIO --help` tells what a scenario does.
    """


def _command(scenario: IScenario) -> click.Command:
    taken = _common()
    own = [_option(option) for option in scenario.options]

    def play(**given: Any) -> None:
        options = {option.name: given.pop(option.name.replace("-", "_")) for option in scenario.options}
        _simulate(scenario, options, **given)

    return click.Command(scenario.name, params=[*taken, *own], callback=play, help=scenario.summary)


def _option(option: Option) -> click.Option:
    return click.Option(
        [f"--{option.name}"],
        type=_Typed("text", option.parse),
        default=option.default,
        show_default=option.default is not None,
        help=option.help,
    )


def _common() -> list[click.Parameter]:
    """The options that every scenario has."""
    file = click.Path(dir_okay=False, writable=True, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    spread = _Typed("text", _checked(network.check_latency))
    return [
        click.Option(["--nodes"], type=click.IntRange(2, MOST_NODES), default=100, show_default=True,
                     help="How many nodes."),
        click.Option(["--seed"], type=int, default=0, show_default=True, help="What all chance is drawn from."),
        click.Option(["--repeat"], type=click.IntRange(1, 1000), default=1, show_default=True,
                     help="How often, with one seed after the other: means and 95 % intervals."),
        click.Option(["--latency"], type=spread, default="50ms", show_default=True,
                     help="One way: 50ms, uniform:10ms:90ms, normal:50ms:10ms or lognormal:50ms:0.5."),
        click.Option(["--loss"], type=click.FloatRange(0, 1), default=0.0, show_default=True,
                     help="Part of the messages that vanish on links."),
        click.Option(["--topology"], default="CHORD-RELOAD", show_default=True, help="Topology Plug-in."),
        click.Option(["--neighbors"], type=click.IntRange(3, 64), default=None,
                     help="Predecessors and successors of each peer [follows the overlay's size]."),
        click.Option(["--json", "json_file"], type=file, help="Write the report here."),
        click.Option(["--csv", "csv_file"], type=file, help="Write the samples here."),
        click.Option(["--plots"], type=folder, help="Write plots into this directory (needs p2psip[simulator])."),
    ]  # fmt: skip


def _simulate(
    scenario: IScenario,
    options: Mapping[str, Any],
    *,
    json_file: Path | None,
    csv_file: Path | None,
    plots: Path | None,
    repeat: int,
    seed: int,
    topology: str,
    neighbors: int | None,
    **given: Any,
) -> None:
    try:
        _see_that_it_can_be_written(json_file, csv_file, plots)
        factory = topology_named(topology, neighbors)
    except (NoMatplotlib, LookupError) as error:
        raise click.ClickException(str(error)) from error
    reports = []
    for number in range(repeat):
        setting = Setting(seed=seed + number, topology=factory, neighbors=neighbors, **given)
        try:
            reports.append(_play(scenario, setting, options, f"{number + 1}/{repeat} " if repeat > 1 else ""))
        except (Unsettled, CannotComply) as error:
            raise click.ClickException(str(error)) from error
    report = combined(reports)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if csv_file is not None:
        write_csv(csv_file, reports)
    if plots is not None:
        for path in write_plots(plots, reports):
            click.echo(f"wrote {path}")
    _print(report)
    if report["invariants"]["violations"]:
        raise SystemExit(1)


def _see_that_it_can_be_written(json_file: Path | None, csv_file: Path | None, plots: Path | None) -> None:
    """Find out before hours of simulation, not after them."""
    for file in filter(None, (json_file, csv_file)):
        if not file.parent.is_dir():
            raise click.ClickException(f"there is no directory {file.parent} for {file.name}")
    if plots is not None:
        require_matplotlib()
        plots.mkdir(parents=True, exist_ok=True)


def _play(scenario: IScenario, setting: Setting, options: Mapping[str, Any], label: str) -> dict[str, Any]:
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label + scenario.name, total=1.0)

        def progress(what: str, done: float) -> None:
            bar.update(task, description=label + what, completed=done)

        run = Run(scenario, setting, options, progress)
        run.play()
    return report_of(run)


def _print(report: Mapping[str, Any]) -> None:
    """The report in a few lines, for people."""
    hops, lookups, values = report["hops"], report["lookups"], report["values"]
    maintenance, fetches = report["maintenance"], report["fetches"]
    rows: list[tuple[str, str]] = [
        ("hops", f"{hops['mean']:.2f} on average, median {hops['p50']:.0f}, 99 % within {hops['p99']:.0f}"),
        ("lookups", _rates(lookups)),
        ("fetches", _rates(fetches)),
        ("values", f"{values['acknowledged']:.0f} acknowledged, {values['lost']:.0f} lost, "
                   f"{values['lost_expected']:.2f} lost to be expected"),
        ("maintenance", f"{maintenance['bytes_per_node_second']:.0f} bytes and "
                        f"{maintenance['messages_per_node_second']:.2f} messages per node and second"),
        ("ring", f"{100 * report['ring']['consistent']:.2f} % of the peers right in the end, "
                 f"{100 * report['ring']['least_consistent']:.2f} % at worst"),
        ("time", f"{report['simulated_seconds']:.0f} s simulated in {report['wall_seconds']:.0f} s"),
        ("memory", f"{report['peak_rss_bytes'] / 2**20:.0f} MiB at most"),
        *((name.replace("_", " "), _figure(value)) for name, value in report["findings"].items()),
    ]  # fmt: skip
    interval = report.get("intervals", {}).get("lookups.success_rate")
    if interval is not None:
        rows.insert(2, ("success rate", f"{interval['mean']:.6f} ± {interval['plus_minus']:.6f} (95 %)"))
    parameters = report["parameters"]
    print_table(("", f"{report['scenario']}, {parameters['nodes']} nodes, seed {parameters['seed']}"), rows)
    for violation in report["invariants"]["told"][:10]:
        click.echo(f"violated at {violation['when']:.0f} s: {violation['invariant']}: {violation['text']}", err=True)
    if report["invariants"]["violations"]:
        click.echo(f"{report['invariants']['violations']} violations of what must hold", err=True)


def _rates(outcomes: Mapping[str, Any]) -> str:
    if not outcomes["total"]:
        return "none"
    return (
        f"{outcomes['total']:.0f}, {100 * outcomes['success_rate']:.4f} % right, "
        f"{100 * outcomes['without_retransmission_rate']:.4f} % without retransmission"
    )


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_figure(inner)}" for name, inner in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)
