"""``p2psip directory``: an LDAP directory whose users are users of the overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .accounts import line_of_stdin
from .connection import NodeConnection, with_node
from .output import print_json


@click.group()
def directory() -> None:
    """The LDAP directory that knows the users (on the node that holds the authority)."""


@directory.command("set")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--base", required=True, help="DN below which the users are, such as ou=people,dc=example,dc=org.")
@click.option("--filter", "filter_", default=None, help="What users match.  [default: (objectClass=person)]")
@click.option("--user-attribute", default=None, help="Attribute with the user name.  [default: uid]")
@click.option("--name-attribute", default=None, help="Attribute that people are shown; '': none.  [default: cn]")
@click.option(
    "--number-attribute", default=None, help="Attribute with the number; '': none.  [default: telephoneNumber]"
)
@click.option("--start-tls/--no-start-tls", default=True, help="Protect ldap:// by StartTLS.  [default: yes]")
@click.option("--insecure", is_flag=True, help="Let passwords go over the network as they are.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Who certifies the servers, PEM.  [default: whom this machine believes]",
)
@click.option("--bind-dn", default=None, help="As whom to search.  [default: as nobody]")
@click.option("--bind-password-stdin", is_flag=True, help="Read that one's password from standard input.")
@click.option("--group", default=None, help="DN of the group of who may use telephony, or a filter.  [default: all]")
@click.option(
    "--registrar-group", default=None, help="The same of who may run nodes that serve phones.  [default: none]"
)
@click.option("--connect-seconds", type=int, default=None, help="Patience for a connection.  [default: 3]")
@click.option("--answer-seconds", type=int, default=None, help="Patience for an answer.  [default: 5]")
@click.option("--page-size", type=int, default=None, help="Entries that are read at once.  [default: 500]")
@click.option("--max-entries", type=int, default=None, help="Entries that are read at most.  [default: 100000]")
@with_node
def directory_set(
    node: NodeConnection,
    urls: tuple[str, ...],
    filter_: str | None,
    ca_file: Path | None,
    bind_dn: str | None,
    bind_password_stdin: bool,
    **settings: Any,
) -> None:
    """Ask the directory at URL from now on; further ones are tried when it fails.

    URL is ldap://HOST[:PORT] or ldaps://HOST[:PORT]. What is not named is as it is unless told otherwise, whatever
    was set before. Nobody's account changes before the directory is read.
    """
    if bool(bind_dn) != bind_password_stdin:
        raise click.UsageError("--bind-dn and --bind-password-stdin go together")
    body = {
        **settings,
        "urls": list(urls),
        "filter": filter_,
        "ca": None if ca_file is None else ca_file.read_text("utf-8"),
        "bind_dn": bind_dn,
        "bind_password": line_of_stdin("password") if bind_password_stdin else None,
    }
    answer = node.ask("PUT", "/directory", {key: value for key, value in body.items() if value is not None})
    click.echo("the directory is set; p2psip directory test USER says what it knows of one")
    _print_servers(answer["servers"])


def _print_servers(servers: dict[str, str]) -> None:
    for url, trouble in servers.items():
        click.echo(f"{url}: {trouble or 'answers'}")


@directory.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def directory_show(node: NodeConnection, as_json: bool) -> None:
    """Show how it is set and when it was read."""
    answer = node.ask("GET", "/directory")
    if as_json:
        print_json(answer)
        return
    last, trouble = answer.pop("last"), answer.pop("trouble")
    answer["bind_password"] = "set" if answer["bind_password"] else ""
    for name, value in answer.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {count}" for key, count in sorted(value.items()))
        click.echo(f"{name.replace('_', ' '):17}: {shown}")
    if trouble:
        click.echo(f"trouble: {trouble}")
    if last is not None:
        _print_changes(last)


@directory.command("test")
@click.argument("user", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def directory_test(node: NodeConnection, user: str | None, as_json: bool) -> None:
    """Say whether its servers answer, and what is found of USER, and why not.

    Exit status 1: something is wrong.
    """
    answer = node.ask("GET", "/directory/test", user=user)
    found = answer["user"]
    if as_json:
        print_json(answer)
    else:
        _print_servers(answer["servers"])
        if found is not None:
            _print_user(str(user), found)
    if any(answer["servers"].values()) or (found is not None and found["why"]):
        raise SystemExit(1)


def _print_user(user: str, found: dict[str, Any]) -> None:
    if "dn" in found:
        click.echo(f"entry            : {found['dn']}")
        click.echo(f"user name        : {found['name']}")
        click.echo(f"display name     : {found['display_name'] or ''}")
        click.echo(f"number           : {found['number'] or ''}")
        click.echo(f"may run registrar: {'yes' if found['registrar'] else 'no'}")
        click.echo(f"has an account   : {'yes' if found['account'] else 'not yet'}")
    click.echo(f"{user} may not use telephony: {found['why']}" if found["why"] else f"{user} may use telephony")


@directory.command("sync")
@click.option("--force", is_flag=True, help="Also if most accounts are lost by it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def directory_sync(node: NodeConnection, force: bool, as_json: bool) -> None:
    """Read it now, and let all accounts that come from it be as it has them."""
    answer = node.ask("POST", "/directory/sync", {"force": force})
    if as_json:
        print_json(answer)
    else:
        _print_changes(answer)


def _print_changes(changes: dict[str, Any]) -> None:
    click.echo(f"{changes['entries']} entries, {changes['accounts']} accounts of them")
    for what in ("changed", "barred", "removed", "demoted"):
        if changes[what]:
            click.echo(f"{what}: {', '.join(changes[what])}")
    for problem in changes["problems"]:
        click.echo(f"problem: {problem}")


@directory.command("off")
@with_node
def directory_off(node: NodeConnection) -> None:
    """Ask it no more.

    Its users' phones go on; nobody can sign in by a password of the directory. Its settings are forgotten.
    """
    node.ask("DELETE", "/directory")
    click.echo("no directory is asked any more; accounts that came from it stay as they are")
