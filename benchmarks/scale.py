"""
How an overlay grows: ``python benchmarks/scale.py --plot docs/images/scale.png``.

Simulates `lookup` in converged overlays of 100 to 10,000 nodes, each in a process of its own, and plots hops, table
sizes, maintenance and memory over the number of nodes.  Prints JSON; `docs/simulator.rst` says what was found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import Any

SIZES = (100, 300, 1000, 3000, 10_000)


def simulated(nodes: int, seed: int, duration: str, neighbors: int | None) -> dict[str, Any]:
    """The report of one overlay."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-c", "from p2psip.cli.main import main; main()", "simulate", "lookup"]
        command += ["--nodes", str(nodes), "--seed", str(seed), "--duration", duration, "--json", str(report)]
        if neighbors is not None:
            command += ["--neighbors", str(neighbors)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(report.read_text())
        return found


def row(report: dict[str, Any]) -> dict[str, Any]:
    """What is plotted of a report."""
    nodes = report["parameters"]["nodes"]
    return {
        "nodes": nodes,
        "hops_mean": report["hops"]["mean"],
        "hops_p99": report["hops"]["p99"],
        "half_log2_nodes": 0.5 * log2(nodes),
        "neighbors_on_either_side": report["tables"]["neighbors"]["mean"],
        "links": report["tables"]["links"]["mean"],
        "maintenance_bytes_per_node_second": report["maintenance"]["bytes_per_node_second"],
        "maintenance_messages_per_node_second": report["maintenance"]["messages_per_node_second"],
        "memory_bytes_per_node": report["memory_bytes_per_node"],
        "peak_rss_bytes": report["peak_rss_bytes"],
        "wall_seconds": report["wall_seconds"],
        "lookups_correct": report["lookups"]["correct"] / max(1, report["lookups"]["total"]),
    }


def plot(path: Path, growing: Sequence[dict[str, Any]], fixed: Sequence[dict[str, Any]], caption: str) -> None:
    """Four plots in one picture: the default O(log N) neighbors, and 3 + 3."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, (title, unit, name) in zip(
        panels,
        (
            ("Hops of a lookup", "mean hops", "hops_mean"),
            ("Links of a node", "links", "links"),
            ("Maintenance while nothing changes", "bytes per node and second", "maintenance_bytes_per_node_second"),
            ("Memory of an idle node", "KiB per node", "memory_bytes_per_node"),
        ),
        strict=True,
    ):
        scale = 1024 if name == "memory_bytes_per_node" else 1
        for label, rows in (("O(log N) neighbors", growing), ("3 + 3 neighbors", fixed)):
            axes.plot([r["nodes"] for r in rows], [r[name] / scale for r in rows], marker="o", label=label)
        if name == "hops_mean":
            axes.plot([r["nodes"] for r in growing], [r["half_log2_nodes"] for r in growing], "k:", label="½ log2 N")
        axes.set(title=title, xlabel="nodes", ylabel=unit, xscale="log")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("p2psip: converged overlays of 100 to 10,000 nodes", fontweight="bold")
    figure.supxlabel(caption, fontsize=8, color="dimgray")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Simulate, plot, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of nodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration", default="10m", help="simulated time of each")
    parser.add_argument("--plot", type=Path, help="write the picture here (needs matplotlib)")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"growing": [], "fixed": []}
    for nodes in arguments.sizes:
        for name, neighbors in (("growing", None), ("fixed", 3)):
            print(f"{nodes} nodes, {name} neighbors", file=sys.stderr)
            found[name].append(row(simulated(nodes, arguments.seed, arguments.duration, neighbors)))
    if arguments.plot:
        caption = f"python benchmarks/scale.py; lookup, seed {arguments.seed}, {arguments.duration}, latency 50 ms"
        plot(arguments.plot, found["growing"], found["fixed"], caption)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
