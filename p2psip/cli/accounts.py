"""``p2psip user``, ``p2psip device``, ``p2psip invite``."""

from __future__ import annotations

import csv
import re
import sys
from typing import Any, TextIO

import click

from .connection import NodeConnection, with_node
from .output import date, print_json, print_table


def line_of_stdin(what: str) -> str:
    """The first line of standard input that was not read yet; `what` says in an error what it should have been."""
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise click.ClickException(f"there is no {what} on standard input")
    return line


def print_settings(settings: dict[str, Any], password: str | None) -> None:
    """Print what a person types into a phone."""
    click.echo(f"Settings for {settings['aor']}'s phone ({settings['device']}):")
    click.echo(f"  SIP server         : {' or '.join(settings['servers'])}")
    click.echo(f"  Domain             : {settings['domain']} (or the server's address)")
    if settings["mode"] == "proxy":
        click.echo("  Outbound proxy     : the SIP server, or none")
    else:
        click.echo("  Outbound proxy     : none (calls are redirected; a phone that insists sends them here again)")
    click.echo(f"  User name          : {settings['user']}")
    click.echo(f"  Authentication name: {settings['user']}")
    if password is not None:
        click.echo(f"  Password           : {password}")
        click.echo("The password is not shown again; `p2psip device add` makes another.")


@click.group()
def user() -> None:
    """Users of the overlay (on the node that holds the authority)."""


@user.command("add")
@click.argument("name")
@click.option("--device", "device_name", default="phone", show_default=True, help="Name of the first device.")
@click.option("--device-password-stdin", is_flag=True, help="Read the device's password from standard input.")
@click.option(
    "--password-stdin", is_flag=True, help="Read a password for the account itself, on a line before."
)
@click.option(
    "--nodes", default=0, show_default=True, help="How many Node-IDs the user may enroll nodes with."
)
@click.option("--number", default=None, help="Telephone number, such as +49301234.")
@click.option("--display-name", default=None, help="Name that people are shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def user_add(
    node: NodeConnection,
    name: str,
    device_name: str,
    device_password_stdin: bool,
    password_stdin: bool,
    nodes: int,
    number: str | None,
    display_name: str | None,
    as_json: bool,
) -> None:
    """Make an account and its first device.

    Prints what is to be typed into the phone.
    """
    password = line_of_stdin("password") if password_stdin else None
    device_password = line_of_stdin("device password") if device_password_stdin else None
    body = {
        "name": name,
        "device": device_name,
        "password": password,
        "device_password": device_password,
        "nodes": nodes,
        "number": number,
        "display_name": display_name,
    }
    settings = node.ask("POST", "/users", body)
    if as_json:
        print_json(settings)
    else:
        print_settings(settings, None if device_password_stdin else settings["password"])


@user.command("passwd")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@with_node
def user_passwd(node: NodeConnection, name: str, password_stdin: bool) -> None:
    """Set an account's own password, for enrolling nodes."""
    if password_stdin:
        password = line_of_stdin("password")
    else:
        password = click.prompt("New password", hide_input=True, confirmation_prompt=True)
    node.ask("POST", "/users/{name}/password", {"password": password}, name=name)
    click.echo(f"the password of {name} is set")


@user.command("set")
@click.argument("name")
@click.option("--number", default=None, help="Telephone number, such as +49301234.")
@click.option("--no-number", is_flag=True, help="Take the number away.")
@click.option("--display-name", default=None, help="Name that people are shown; empty: none.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether the account may be used.")
@with_node
def user_set(
    node: NodeConnection,
    name: str,
    number: str | None,
    no_number: bool,
    display_name: str | None,
    disabled: bool | None,
) -> None:
    """Change an account.

    With a disabled one nobody can register a phone, sign in or enroll; nothing of it is lost.
    """
    if no_number and number is not None:
        raise click.UsageError("--number and --no-number exclude each other")
    given = {"number": "" if no_number else number, "display_name": display_name, "disabled": disabled}
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("say what to change, see --help")
    node.ask("POST", "/users/{name}/settings", changes, name=name)
    click.echo(f"{name} is changed")
    if disabled:
        click.echo("nodes that serve its phones learn of it within their --revocation-interval")


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def user_list(node: NodeConnection, as_json: bool) -> None:
    """List the users and their devices."""
    users = list(node.pages("/users", "users"))
    if as_json:
        print_json(users)
    else:
        print_table(
            ("USER", "NAME", "NUMBER", "DEVICES", "CREATED", ""),
            [
                (
                    u["name"],
                    u["display_name"] or "",
                    u["number"] or "",
                    ", ".join(u["devices"]),
                    date(u["created"]),
                    "disabled" if u["disabled"] else "",
                )
                for u in users
            ],
        )


@user.command("remove")
@click.argument("name")
@with_node
def user_remove(node: NodeConnection, name: str) -> None:
    """Remove an account with all its devices."""
    node.ask("DELETE", "/users/{name}", name=name)
    click.echo(f"{name} is removed; nodes that serve its phones learn of it within their --revocation-interval")


@user.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@with_node
def user_import(node: NodeConnection, file: TextIO) -> None:
    """Make many accounts at once.

    FILE (- for standard input) has CSV lines NAME[,DEVICE PASSWORD]; what begins with # is skipped. For a line
    without a password a random one is made; NAME,PASSWORD of every account made is printed.
    """
    rows = [row for row in csv.reader(file) if row and row[0] and not row[0].startswith("#")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    failed = 0
    for start in range(0, len(rows), 100):
        part = [
            {"name": row[0].strip(), "password": row[1].strip() if len(row) > 1 and row[1].strip() else None}
            for row in rows[start : start + 100]
        ]
        for result in node.ask("POST", "/users/import", part)["results"]:
            if "error" in result:
                failed += 1
                click.echo(f"{result['name']}: {result['error']}", err=True)
            else:
                writer.writerow([result["name"], result["password"]])
    if failed:
        raise click.ClickException(f"{failed} of {len(rows)} accounts were not made")


@click.group()
def device() -> None:
    """A user's phones, each with a password of its own."""


@device.command("add")
@click.argument("user_name", metavar="USER")
@click.option("--name", default=None, help="Name of the device [default: phone, phone2, ...].")
@click.option("--password-stdin", is_flag=True, help="Read the device's password from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def device_add(
    node: NodeConnection, user_name: str, name: str | None, password_stdin: bool, as_json: bool
) -> None:
    """Add a phone to a user; its password is shown once."""
    password = line_of_stdin("password") if password_stdin else None
    body = {"name": name, "password": password}
    settings = node.ask("POST", "/users/{name}/devices", body, name=user_name)
    if as_json:
        print_json(settings)
    else:
        print_settings(settings, None if password_stdin else settings["password"])


@device.command("list")
@click.argument("user_name", metavar="USER")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def device_list(node: NodeConnection, user_name: str, as_json: bool) -> None:
    """List a user's phones."""
    devices = node.ask("GET", "/users/{name}/devices", name=user_name)["devices"]
    if as_json:
        print_json(devices)
    else:
        print_table(("DEVICE", "CREATED"), [(d["name"], date(d["created"])) for d in devices])


@device.command("revoke")
@click.argument("user_name", metavar="USER")
@click.argument("name")
@with_node
def device_revoke(node: NodeConnection, user_name: str, name: str) -> None:
    """Make the password of one phone invalid."""
    node.ask("DELETE", "/users/{name}/devices/{device}", name=user_name, device=name)
    click.echo(f"{name} of {user_name} is revoked; nodes that serve it learn of it within their --revocation-interval")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", value)
    if not match or not int(match[1]):
        raise click.BadParameter("write a time such as 30m, 1h or 7d")
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


@click.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["peer", "registrar"]),
    default="registrar",
    show_default=True,
    help="What the node may do: a registrar serves phones, a peer only carries the overlay.",
)
@click.option(
    "--expires",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="How long the token is good: 30m, 1h, 7d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_node
def invite(node: NodeConnection, name: str, role: str, expires: int, as_json: bool) -> None:
    """Make a join token for a new node called NAME."""
    answer = node.ask("POST", "/invitations", {"name": name, "role": role, "expires": expires})
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["token"])
