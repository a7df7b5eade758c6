"""Plots of what a simulation tells: PNG files, each of which can be read alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]

MOST_PARAMETERS = 130
"""Characters of parameters in a line under a plot."""


class NoMatplotlib(Exception):
    """Plots need matplotlib, which is not installed."""


def require_matplotlib() -> None:
    """See that there can be plots.

    :raises NoMatplotlib: there is no matplotlib; the text says what to do.
    """
    try:
        import matplotlib  # noqa: F401 - it is an extra
    except ImportError:
        raise NoMatplotlib("plots need matplotlib: pip install 'p2psip[simulator]'") from None


def write_plots(folder: Path, reports: Sequence[Report]) -> Iterator[Path]:
    """Write the plots of one or more repetitions of a scenario into `folder`; answers each file as it is written.

    :raises NoMatplotlib: there is no matplotlib.
    """
    for name, figure in figures(reports):
        path = folder / f"{reports[0]['scenario']}-{name}.png"
        figure.savefig(path, dpi=120)
        yield path


def figures(reports: Sequence[Report]) -> Iterator[tuple[str, Any]]:
    """Each plot for which there is something to draw: its name, and a `matplotlib.figure.Figure`.

    :raises NoMatplotlib: there is no matplotlib.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    for name, title, draw in _PLOTS:
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        axes = figure.add_subplot()
        if draw(axes, reports):
            axes.set_title(f"{reports[0]['scenario']}: {title}", loc="left", fontweight="bold")
            axes.grid(alpha=0.3)
            figure.supxlabel(_caption(reports), fontsize=7, color="dimgray")
            yield name, figure


def _caption(reports: Sequence[Report]) -> str:
    """All parameters, so that the plot tells how it was made."""
    parameters = dict(reports[0]["parameters"])
    parameters["seed"] = ", ".join(str(report["parameters"]["seed"]) for report in reports)
    lines, line = [], "p2psip simulate " + str(reports[0]["scenario"])
    for name, value in parameters.items():
        if value in (None, ()):
            continue
        part = f"{name} {value}"
        if len(line) + len(part) > MOST_PARAMETERS:
            lines.append(line)
            line = part
        else:
            line += f"; {part}"
    return "\n".join([*lines, line])


def _hops(axes: Any, reports: Sequence[Report]) -> bool:
    counted: dict[int, int] = {}
    for report in reports:
        for hops, count in report["hops"]["distribution"].items():
            counted[int(hops)] = counted.get(int(hops), 0) + count
    total = sum(counted.values())
    if not total:
        return False
    mean = sum(hops * count for hops, count in counted.items()) / total
    axes.bar(list(counted), [100 * count / total for count in counted.values()], color="tab:blue")
    axes.axvline(mean, color="tab:red", label=f"mean {mean:.2f}")
    axes.set(xlabel="overlay hops from who asks to the responsible peer", ylabel="lookups [%]")
    axes.legend()
    return True


def _percentiles(axes: Any, reports: Sequence[Report], group: str, name: str, scale: float, unit: str) -> bool:
    """How many stay below what, of something that the report has percentiles of."""
    drawn = False
    for report in reports:
        steps = report[group][name]["percentiles"]
        if steps:
            share = [100 * number / (len(steps) - 1) for number in range(len(steps))]
            axes.plot([scale * step for step in steps], share, label=f"seed {report['parameters']['seed']}")
            drawn = True
    axes.set(xlabel=unit, ylabel="so many stay below [%]")
    axes.set_xlim(left=0)
    if len(reports) > 1 and drawn:
        axes.legend()
    return drawn


def _latency(axes: Any, reports: Sequence[Report]) -> bool:
    return _percentiles(axes, reports, "lookups", "seconds", 1000, "from the lookup to its answer [ms]")


def _load(axes: Any, reports: Sequence[Report]) -> bool:
    unit = "maintenance that a node sends [bytes per second]"
    return _percentiles(axes, reports, "load", "maintenance_bytes_per_second", 1, unit)


def _over_time(
    axes: Any, reports: Sequence[Report], value: Callable[[Mapping[str, Any]], float | None], unit: str
) -> bool:
    drawn = False
    for report in reports:
        points = [
            (sample["seconds"] / 60, found)
            for sample in report["samples"][1:]
            if (found := value(sample)) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"seed {report['parameters']['seed']}", linewidth=1.2)
            drawn = True
    axes.set(xlabel="simulated time [min]", ylabel=unit)
    if len(reports) > 1 and drawn:
        axes.legend()
    return drawn


def _consistency(axes: Any, reports: Sequence[Report]) -> bool:
    return _over_time(axes, reports, lambda sample: 100 * sample["consistent"], "peers with right successors [%]")


def _maintenance(axes: Any, reports: Sequence[Report]) -> bool:
    return _over_time(
        axes, reports, lambda sample: sample["bytes_per_node_second"], "maintenance [bytes per node and second]"
    )


def _both(
    axes: Any, reports: Sequence[Report], unit: str, **values: Callable[[Mapping[str, Any]], float | None]
) -> bool:
    """Two things of one unit over time, the second dotted; each keyword names one."""
    drawn = False
    for style, (name, value) in zip("-:", values.items(), strict=True):
        before = len(axes.lines)
        drawn = _over_time(axes, reports, value, unit) or drawn
        for line in axes.lines[before:]:
            line.set(label=f"{name.replace('_', ' ')}, {line.get_label()}", linestyle=style)
    if drawn:
        axes.legend()
    return drawn


def _success(axes: Any, reports: Sequence[Report]) -> bool:
    def part(what: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda sample: 100 * sample[what] / sample["lookups"] if sample["lookups"] else None

    right, at_once = part("lookups_right"), part("lookups_first")
    return _both(axes, reports, "lookups [%]", right=right, right_without_retransmission=at_once)


def _replicas(axes: Any, reports: Sequence[Report]) -> bool:
    samples = reports[0]["samples"]
    copies = sorted({int(count) for sample in samples for count in sample["replicas"]})
    if not copies:
        return False
    minutes = [sample["seconds"] / 60 for sample in samples]
    for count in copies:
        values = [sample["replicas"].get(count, sample["replicas"].get(str(count), 0)) for sample in samples]
        axes.plot(minutes, values, label=f"{count} copies")
    axes.set(xlabel="simulated time [min]", ylabel="values (first seed)")
    axes.set_yscale("symlog", linthresh=10)
    axes.legend()
    return True


def _size(axes: Any, reports: Sequence[Report]) -> bool:
    return _over_time(axes, reports, lambda sample: sample["peers"], "peers")


def _tables(axes: Any, reports: Sequence[Report]) -> bool:
    def column(name: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda sample: float(sample[name])

    return _both(axes, reports, "per node", members=column("members_per_node"), links=column("links_per_node"))


_PLOTS: tuple[tuple[str, str, Callable[[Any, Sequence[Report]], bool]], ...] = (
    ("hops", "how many hops lookups take", _hops),
    ("latency", "how long lookups take", _latency),
    ("load", "how equal the work of the nodes is", _load),
    ("success", "lookups that find the responsible peer", _success),
    ("ring", "the successor lists against the truth", _consistency),
    ("maintenance", "what it costs to keep the overlay", _maintenance),
    ("replicas", "copies of the values", _replicas),
    ("size", "how many peers there are", _size),
    ("tables", "links and Routing Tables", _tables),
)
