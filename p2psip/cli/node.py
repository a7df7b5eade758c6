"""``p2psip status``, ``lookup``, ``ping``, ``probe``, ``fetch``, ``store``, ``leave``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .connection import NodeConnection, with_node
from .output import duration, print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def status(node: NodeConnection, as_json: bool) -> None:
    """Show how the node is doing."""
    answer = node.ask("GET", "/status")
    if as_json:
        print_json(answer)
        return
    role, joined = answer["role"], "joined" if answer["joined"] else answer.get("phase", "not joined")
    click.echo(f"{answer['overlay']}: {role} {answer['node_id']}, {joined}, up {duration(answer['uptime'])}")
    if answer.get("user_name"):
        click.echo(f"  user name: {answer['user_name']}")
    for listener in answer["listeners"]:
        click.echo(f"  listening: {listener}")
    neighbors = answer["neighbors"]
    for name in ("predecessors", "successors"):
        click.echo(f"  {name}: {', '.join(n[:8] for n in neighbors[name]) or 'none'}")
    click.echo(f"  fingers: {len(answer['fingers'])}")
    stored = answer["stored"]
    click.echo(
        f"  stored: {stored['values']} values of {stored['resources']} resources, {stored['bytes']} bytes"
    )
    click.echo(f"  registrations of phones here: {answer['registrations']['total']}")
    _print_turn(answer.get("turn") or {})
    _print_gateway(answer.get("gateway") or {})
    for relay in (answer.get("media") or {}).get("relays", ()):
        click.echo(f"  media relay: {relay['address']}{'' if relay['up'] else ', does not answer'}")
    if answer["links"]:
        print_table(
            ("NODE", "PROTOCOL", "CANDIDATE PAIR", "RTT"),
            [
                (k["node_id"], k["protocol"], k["candidate_pair"], _milliseconds(k["rtt_ms"]))
                for k in answer["links"]
            ],
        )
    if answer["applications"]:
        print_table(
            ("NODE", "APPLICATION", "PROTOCOL", "ADDRESS OR CANDIDATE PAIR"),
            [
                (k["node_id"], str(k["application"]), k["protocol"], k["candidate_pair"] or k["address"])
                for k in answer["applications"]
            ],
        )
    if answer["rejected"]:
        print_table(("REJECTED", "TIMES"), sorted(answer["rejected"].items()))


def _print_turn(turn: Mapping[str, Any]) -> None:
    if turn.get("server"):
        why_not = turn["not_registered"]
        registered = f"not registered: {why_not}" if why_not else f"registered at {turn['registered']} places"
        click.echo(f"  TURN server here: {turn['server']}, {registered}")
    if turn.get("relay"):
        click.echo(f"  TURN server found: {turn['relay']}")


def _print_gateway(gateway: Mapping[str, Any]) -> None:
    trunks = gateway.get("trunks") or ()
    if trunks:
        why_not = gateway["not_registered"]
        click.echo(f"  gateway: {f'not registered: {why_not}' if why_not else 'registered in the overlay'}")
    for trunk in trunks:
        servers = ", ".join(trunk["servers"]) or "not found"
        click.echo(f"  trunk: {trunk['uri']} ({servers}){', registered there' if trunk['registered'] else ''}")


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


@click.command()
@click.argument("aor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def lookup(node: NodeConnection, aor: str, as_json: bool) -> None:
    """Find where a user is registered.

    AOR is alice, alice@example.org or sip:alice@example.org.
    """
    answer = node.ask("GET", "/lookup", aor=aor)
    if as_json:
        print_json(answer)
    else:
        for entry in answer["nodes"]:
            if not entry["node_id"]:
                click.echo(f"{answer['aor']} is forwarded to {entry['aor']}")
                continue
            as_other = f" as {entry['aor']}" if "aor" in entry else ""
            click.echo(f"{answer['aor']} is registered at node {entry['node_id']}{as_other}")
            for contact in entry.get("contacts") or ():
                click.echo(f"  {contact['uri']} (q={contact['q']}, {contact['expires']} s left)")
    if not answer["nodes"]:
        raise click.ClickException(f"{answer['aor']} is not registered")


@click.command()
@click.argument("target", required=False)
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 100), help="How many times.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def ping(node: NodeConnection, target: str | None, count: int, as_json: bool) -> None:
    """Send a RELOAD Ping.

    TARGET is a Node-ID, or a name: then the peer that is responsible for it answers. Without TARGET a random place of
    the overlay is asked.
    """
    answers: list[dict[str, Any]] = []
    for _ in range(count):
        answer = node.ask("POST", "/ping", {"target": target})
        answers.append(answer)
        if not as_json:
            click.echo(f"answer from {answer['node_id']}: {answer['rtt_ms']:.1f} ms, {answer['hops']} hops")
    if as_json:
        print_json(answers)


@click.command()
@click.argument("target", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def probe(node: NodeConnection, target: str | None, as_json: bool) -> None:
    """Ask a peer what it is responsible for (RELOAD Probe).

    TARGET is a Node-ID, or a name: then the peer that is responsible for it answers. Without TARGET a random place of
    the overlay is asked.
    """
    answer = node.ask("POST", "/probe", {"target": target})
    if as_json:
        print_json(answer)
        return
    part = answer.get("responsible_ppb", 0) / 1e7
    resources, up = answer.get("num_resources", 0), answer.get("uptime", 0)
    click.echo(
        f"{answer['node_id']} is responsible for {part:.2f} % of the overlay, holds {resources} resources, up {up} s"
    )


@click.command()
@click.argument("name")
@click.option("--kind", required=True, help="Kind name or number, such as SIP-REGISTRATION.")
@click.option("--key", default=None, help="Of a dictionary only this key, in hex.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def fetch(node: NodeConnection, name: str, kind: str, key: str | None, as_json: bool) -> None:
    """Fetch what is stored under a Resource Name.

    NAME is text, such as alice@example.org, or hex: followed by hex digits, such as a Node-ID.
    """
    answer = node.ask("POST", "/fetch", {"name": name, "kind": kind, "key": key})
    if as_json:
        print_json(answer)
    else:
        for value in answer["values"]:
            place = value.get("key", value.get("index", ""))
            click.echo(f"{place}\t{value['value']}\t{value['signer']}".lstrip("\t"))
    if not answer["values"]:
        raise click.ClickException("nothing is stored there")


@click.command()
@click.argument("value", required=False)
@click.option("--kind", required=True, help="Kind name or number.")
@click.option("--name", default=None, help="Resource Name, one that the Kind lets this node write "
              "[default: the node's user name, or its Node-ID, as the Kind wants].")  # fmt: skip
@click.option("--key", default=None, help="Dictionary key, in hex [default: the Node-ID].")
@click.option("--index", type=int, default=None, help="Array index [default: append].")
@click.option("--lifetime", default=3600, show_default=True, help="Seconds that it is kept.")
@click.option("--remove", is_flag=True, help="Remove what is there; there is no VALUE then.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def store(
    node: NodeConnection,
    value: str | None,
    kind: str,
    name: str | None,
    key: str | None,
    index: int | None,
    lifetime: int,
    remove: bool,
    as_json: bool,
) -> None:
    """Store a value under one of this node's own names.

    VALUE is text, or hex: followed by hex digits.
    """
    if value is None and not remove:
        raise click.UsageError("give either a VALUE or --remove")
    body = {
        "kind": kind,
        "name": name,
        "key": key,
        "index": index,
        "lifetime": lifetime,
        "value": value or "",
        "exists": not remove,
    }
    answer = node.ask("POST", "/store", body)
    if as_json:
        print_json(answer)
    else:
        done, copies = "removed" if remove else "stored", len(answer["replicas"])
        click.echo(f"{done}; generation {answer['generation']}, copies at {copies} more peers")


@click.command()
@with_node
def leave(node: NodeConnection) -> None:
    """Leave the overlay in good order, and stop the node.

    What it stores is handed on first. Started again, it rejoins.
    """
    node.ask("POST", "/leave", {})
    click.echo("the node has left and stops")
