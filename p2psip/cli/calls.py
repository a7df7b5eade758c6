"""``p2psip forward``: where a user's calls go."""

from __future__ import annotations

import click

from .connection import NodeConnection, with_node
from .output import print_json, print_table


@click.command()
@click.argument("user", required=False)
@click.argument("target", required=False)
@click.option("--off", is_flag=True, help="Let USER's phones ring again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def forward(node: NodeConnection, user: str | None, target: str | None, off: bool, as_json: bool) -> None:
    """Forward USER's calls to TARGET: a user (bob), an AOR (carol@example.net), or a number (+49301234).

    Without TARGET show where they go; without USER show all that are forwarded at this node. Ask a node that serves
    USER's phones. The phones there do not ring any more; those at other nodes do, besides TARGET's.
    """
    if target is not None and off:
        raise click.UsageError("TARGET and --off exclude each other")
    if off and user is None:
        raise click.UsageError("--off: of which USER?")
    if user is not None and (target is not None or off):
        answer = node.ask("POST", "/forwards", {"aor": user, "target": target})
        if as_json:
            print_json(answer)
        elif target is None:
            click.echo(f"calls for {answer['aor']} come to its phones")
        else:
            click.echo(f"calls for {answer['aor']} go to {answer['target']}")
        return
    forwards = node.ask("GET", "/forwards", **({"aor": user} if user is not None else {}))["forwards"]
    if as_json:
        print_json(forwards)
    elif user is not None and not forwards:
        click.echo(f"calls for {user} come to its phones")
    else:
        print_table(("CALLS FOR", "GO TO"), [(entry["aor"], entry["target"]) for entry in forwards])
