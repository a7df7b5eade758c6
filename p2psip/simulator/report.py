"""What a simulation tells in the end: JSON for programs, CSV for spreadsheets; several repetitions as one."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figures import interval, percentiles, summary
from .run import Run, Sample, peak_rss_bytes
from .workload import Outcomes

MOST_BINS = 64
"""How many numbers of hops, or of other things, are told apart."""


def report_of(run: Run) -> dict[str, Any]:
    """What there is to say of one run, ready for JSON.

    `trace_hash` is the same whenever the same is simulated: a hash of every message and of when it was sent.
    """
    overlay, workload, traffic = run.overlay, run.workload, run.overlay.traffic
    node_seconds = max(1e-9, run.node_seconds)
    simulated = max(1e-9, run.samples[-1].seconds)
    return {
        "scenario": run.scenario.name,
        "parameters": parameters_of(run),
        "hops": {**summary(workload.lookups.hops), "distribution": _distribution(workload.lookups.hops)},
        "lookups": _outcomes(workload.lookups),
        "fetches": _outcomes(workload.fetches),
        "stores": _outcomes(workload.stores),
        "values": {
            "acknowledged": len(run.final_holders),
            "lost": run.lost,
            "lost_expected": run.lost_expected,
            "replicas": dict(run.samples[-1].replicas),
        },
        "maintenance": {
            "bytes_per_node_second": traffic.maintenance_bytes / node_seconds,
            "messages_per_node_second": traffic.maintenance_messages / node_seconds,
            "by_method": {
                name: {what: number / node_seconds for what, number in counted.items()}
                for name, counted in traffic.by_method().items()
            },
        },
        "load": _load(run),
        "ring": {
            "consistent": run.samples[-1].consistent,
            "least_consistent": min(sample.consistent for sample in run.samples),
            "seconds_wrong": summary(run.invariants.wrong),
        },
        "tables": {
            "links": summary([float(len(node.table)) for node in overlay.nodes.values()]),
            "members": run.samples[-1].members_per_node,
            "neighbors": summary([float(_neighbors(node)) for node in overlay.nodes.values()]),
        },
        "rejected": dict(_rejected(run)),
        "invariants": {
            "violations": run.invariants.count,
            "told": [dataclasses.asdict(violation) for violation in run.invariants.violations],
        },
        "findings": dict(run.scenario.findings(run, run.options)),
        "simulated_seconds": simulated,
        "wall_seconds": run.wall_seconds,
        "wall_seconds_per_simulated_second": run.loop_seconds / simulated,
        "built_seconds": run.built_seconds,
        "memory_bytes_per_node": run.bytes_per_node,
        "peak_rss_bytes": peak_rss_bytes(),
        "trace_hash": traffic.trace_hash,
        "samples": [dataclasses.asdict(sample) for sample in run.samples],
    }


def parameters_of(run: Run) -> dict[str, Any]:
    """What the run was made with: all that is needed to repeat it."""
    setting = run.setting
    options = {name: _typed(value) for name, value in run.options.items()}
    return {
        "nodes": setting.nodes,
        "seed": setting.seed,
        "latency": setting.latency,
        "loss": setting.loss,
        "topology": setting.topology.name,
        "neighbors": setting.neighbors if setting.neighbors is not None else "O(log N)",
        **{name: _typed(value) for name, value in setting.configuration.items()},
        **options,
    }


def _typed(value: Any) -> int | float | str | None:
    """A value of an option for JSON."""
    if isinstance(value, (int, float, str, type(None))):
        return value
    return f"{len(value)} events" if isinstance(value, list) else str(value)


def _outcomes(outcomes: Outcomes) -> dict[str, Any]:
    return {
        "total": outcomes.total,
        "correct": outcomes.right,
        "success_rate": outcomes.success_rate,
        "without_retransmission": outcomes.first,
        "without_retransmission_rate": outcomes.first_rate,
        "seconds": spread(outcomes.seconds),
        "failures": dict(sorted(outcomes.causes.items())),
    }


def spread(numbers: Sequence[float]) -> dict[str, Any]:
    """A summary, and `percentiles` in steps of five."""
    return {**summary(numbers), "percentiles": percentiles(numbers)}


def _distribution(numbers: Sequence[int]) -> dict[str, int]:
    return {str(number): count for number, count in sorted(Counter(numbers).items())[:MOST_BINS]}


def _load(run: Run) -> dict[str, Any]:
    """How unequal the nodes' work is: bytes of maintenance that each sends, and values that each keeps."""
    seconds = max(1e-9, run.samples[-1].seconds)
    sent = [
        run.overlay.traffic.per_node[run.overlay.address(node)] / seconds for node in run.overlay.nodes.values()
    ]
    return {
        "maintenance_bytes_per_second": spread(sent),
        "messages_forwarded": spread([float(node.messaging.forwarded) for node in run.overlay.nodes.values()]),
        "values_kept": spread([float(node.storage.values) for node in run.overlay.nodes.values()]),
    }


def _neighbors(node: Any) -> int:
    neighbors = node.topology.status()["neighbors"]
    return len(neighbors["successors"])


def _rejected(run: Run) -> Counter[str]:
    """What nodes that live in the end have refused or dropped, by cause."""
    counted = Counter[str]()
    for node in run.overlay.nodes.values():
        counted.update(node.rejected())
    return Counter(dict(sorted(counted.items())))


# -- Repetitions -----------------------------------------------------------------------------------------


def combined(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of several repetitions: that of the first, each figure replaced by the mean of all.

    What was found to be so has to be so in all of them.

    `intervals` has for each figure, by its path, the mean and how far the true one may lie from it (95 %).
    """
    if len(reports) == 1:
        return dict(reports[0])
    figures = [dict(_figures(report)) for report in reports]
    common = [path for path in figures[0] if all(path in other for other in figures[1:])]
    intervals = {path: interval([found[path] for found in figures]) for path in common}
    merged = _with_means(reports[0], intervals)
    merged["findings"] |= {
        name: all(report["findings"].get(name) for report in reports)
        for name, value in reports[0]["findings"].items()
        if isinstance(value, bool)
    }
    merged["parameters"]["repeat"] = len(reports)
    merged["parameters"]["seeds"] = [report["parameters"]["seed"] for report in reports]
    merged["trace_hash"] = [report["trace_hash"] for report in reports]
    merged["invariants"] = {
        "violations": sum(report["invariants"]["violations"] for report in reports),
        "told": [violation for report in reports for violation in report["invariants"]["told"]],
    }
    return {**merged, "intervals": intervals, "repetitions": list(reports)}


_NO_FIGURES = ("parameters", "samples", "invariants", "rejected", "distribution", "failures", "replicas", "by_method")


def _figures(report: Mapping[str, Any], path: str = "") -> list[tuple[str, float]]:
    """Every number in a report, by its path: ('hops.mean', 5.02)."""
    found = []
    for name, value in report.items():
        if name in _NO_FIGURES:
            continue
        if isinstance(value, Mapping):
            found += _figures(value, f"{path}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((path + name, float(value)))
    return found


def _with_means(report: Mapping[str, Any], intervals: Mapping[str, Mapping[str, float]], path: str = "") -> Any:
    return {
        name: _with_means(value, intervals, f"{path}{name}.")
        if isinstance(value, Mapping)
        else intervals[f"{path}{name}"]["mean"]
        if f"{path}{name}" in intervals
        else value
        for name, value in report.items()
    }


# -- CSV -------------------------------------------------------------------------------------------------


def write_csv(path: Path, reports: Sequence[Mapping[str, Any]]) -> None:
    """A row for each sample of each repetition."""
    columns = [field.name for field in dataclasses.fields(Sample) if field.name != "replicas"]
    copies = sorted({int(count) for report in reports for sample in report["samples"] for count in sample["replicas"]})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *columns, *(f"values_with_{count}_copies" for count in copies)])
        for report in reports:
            for sample in report["samples"]:
                replicas = {int(count): number for count, number in sample["replicas"].items()}
                row = [report["parameters"]["seed"], *(sample[name] for name in columns)]
                writer.writerow([*row, *(replicas.get(count, 0) for count in copies)])
