"""``p2psip authority``: who may join, and moving that power to another node."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import BinaryIO

import click

from .connection import NodeConnection, with_node
from .output import date, print_json, print_table


@click.group()
def authority() -> None:
    """The authority: who may join, and what the configuration is."""


def _passphrase(file: Path | None, confirm: bool) -> str:
    if file is not None:
        lines = file.read_text("utf-8").splitlines()
        if not lines or not lines[0]:
            raise click.ClickException(f"{file} holds no passphrase")
        return lines[0]
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))


_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True),
    help="Read the passphrase from the first line of this file [default: ask].",
)


@authority.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase_option
@with_node
def authority_export(node: NodeConnection, file: Path, passphrase_file: Path | None) -> None:
    """Write the authority to FILE, encrypted with a passphrase."""
    if file.exists():
        raise click.ClickException(f"{file} exists already")
    answer = node.ask("POST", "/authority/export", {"passphrase": _passphrase(passphrase_file, True)})
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as opened:
        opened.write(base64.b64decode(answer["archive"]))
    click.echo(f"{file} holds the authority of {answer['overlay']}: keep it and the passphrase apart")


@authority.command("import")
@click.argument("file", type=click.File("rb"))
@_passphrase_option
@with_node
def authority_import(node: NodeConnection, file: BinaryIO, passphrase_file: Path | None) -> None:
    """Give the running node the authority out of FILE.

    It enrolls nodes and users from now on; so do all others that have the authority.
    """
    body = {
        "archive": base64.b64encode(file.read()).decode(),
        "passphrase": _passphrase(passphrase_file, False),
    }
    answer = node.ask("POST", "/authority/import", body)
    click.echo(f"this node holds the authority of {answer['overlay']} now; it enrolls at {answer['url']}")


@authority.command("log")
@click.option("--limit", default=100, show_default=True, help="How many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def authority_log(node: NodeConnection, limit: int, as_json: bool) -> None:
    """Show the newest lines of the audit log."""
    lines = node.ask("GET", "/authority/log", limit=limit)["log"]
    if as_json:
        print_json(lines)
    else:
        print_table(
            ("TIME", "EVENT", "SUBJECT", "SOURCE", "DETAIL"),
            [(date(k["time"]), k["event"], k["subject"], k["source"], k["detail"]) for k in lines],
        )


@authority.command("expel")
@click.argument("name")
@with_node
def authority_expel(node: NodeConnection, name: str) -> None:
    """Throw the node NAME out of the overlay: its links are closed, its certificate is not renewed."""
    answer = node.ask("POST", "/authority/expel", {"name": name})
    click.echo(f"expelled: {', '.join(answer['node_ids'])}")


@authority.command("publish")
@click.argument("file", type=click.File("rb"))
@with_node
def authority_publish(node: NodeConnection, file: BinaryIO) -> None:
    """Sign a configuration document and send it to every node.

    FILE is the overlay.xml in use, out of a state directory, with your changes. It gets the next sequence number.
    """
    answer = node.ask("POST", "/authority/publish", {"document": file.read().decode("utf-8")})
    click.echo(f"configuration {answer['sequence']} is published")


@authority.group()
def bootstrap() -> None:
    """The bootstrap nodes: where nodes that join look for the overlay first.

    The configuration document names them; each change is a new document, sent to every node.
    """


@bootstrap.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def bootstrap_list(node: NodeConnection, as_json: bool) -> None:
    """List them."""
    answer = node.ask("GET", "/authority/bootstrap")
    if as_json:
        print_json(answer)
    else:
        click.echo("\n".join(answer["bootstrap_nodes"]))


@bootstrap.command("add")
@click.argument("place", metavar="ADDRESS[:PORT]")
@with_node
def bootstrap_add(node: NodeConnection, place: str) -> None:
    """Add a node that listens at ADDRESS (port 6084 unless given); IPv6 with a port is [ADDRESS]:PORT."""
    _bootstrap(node, {"add": place})


@bootstrap.command("remove")
@click.argument("place", metavar="ADDRESS[:PORT]")
@with_node
def bootstrap_remove(node: NodeConnection, place: str) -> None:
    """Remove one; not the last."""
    _bootstrap(node, {"remove": place})


def _bootstrap(node: NodeConnection, change: dict[str, str]) -> None:
    answer = node.ask("POST", "/authority/bootstrap", change)
    places = ", ".join(answer["bootstrap_nodes"])
    click.echo(f"configuration {answer['sequence']} has the bootstrap nodes {places}")
