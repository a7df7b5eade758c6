"""The laboratory for a person: ``python -m tests.natlab up``."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from .coturn import PORT, start_coturn
from .description import DescriptionError, Line, NATKind, draw
from .laboratory import Laboratory
from .namespaces import CommandFailed, NotPermitted
from .scenarios import Home, ThreePeers

DESCRIPTION = """\
Build a small internet in network namespaces, to run nodes behind NATs on one machine.

There are three hosts: p on the public network, a and b at home, each behind a NAT of its own. Needs root.
Nothing in it reaches the real network."""

EXPLANATIONS = """\
kinds of NAT:
  none          none: the host is on the public network
  cone          one port for all destinations; answers come in from whom a packet went to
  full-cone     one port for all destinations; anybody's packets come in
  symmetric     another port for each destination; answers as with a cone
  udp-blocking  no UDP at all; TCP goes out

examples:
  python -m tests.natlab up --nat-a symmetric --nat-b symmetric --turn
  python -m tests.natlab up --carrier-a symmetric --ipv6 --loss 20 --delay 40 --jitter 30
  python -m tests.natlab shell a
  python -m tests.natlab shell b ip -brief address
  python -m tests.natlab down"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.natlab",
        description=DESCRIPTION,
        epilog=EXPLANATIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="up|down|shell")
    up = commands.add_parser("up", help="build it, print it, and leave it standing until 'down'")
    up.add_argument("--wait", action="store_true", help="stay, and take it down when interrupted")
    shell = commands.add_parser(
        "shell", help="a shell, or one command, at a host; builds a laboratory for that long if none stands"
    )
    down = commands.add_parser("down", help="end whatever runs in it, and remove it, also after a killed run")
    for command in (up, shell, down):
        command.add_argument(
            "--name", default="default", help="laboratories of different names stand side by side (%(default)s)"
        )
    for command in (up, shell):
        add_options(command)
    shell.add_argument("host", help="p, a, b, turn, or a router such as nat-a or internet")
    shell.add_argument("argv", nargs=argparse.REMAINDER, metavar="command", help="in place of a shell")
    return top


def add_options(command: argparse.ArgumentParser) -> None:
    """What the laboratory is to be like."""
    kinds = ["none", *(kind.value for kind in NATKind)]
    group = command.add_argument_group("the laboratory", "KIND is one of: " + ", ".join(kinds) + ".")
    for option, default, what in (("nat", "cone", "the NAT of"), ("carrier", "none", "a carrier's NAT before that of")):
        for host in "ab":
            group.add_argument(
                f"--{option}-{host}",
                choices=kinds,
                default=default,
                metavar="KIND",
                help=f"{what} {host} (%(default)s)",
            )
    group.add_argument("--ipv6", action="store_true", help="public IPv6 for a and b, behind a stateful firewall")
    group.add_argument("--turn", action="store_true", help="coturn on a public host of its own")
    group = command.add_argument_group("the lines of the homes of a and b to the internet")
    group.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="packets lost, in each direction")
    group.add_argument("--delay", type=float, default=0, metavar="MS", help="how long each packet takes at least")
    group.add_argument("--jitter", type=float, default=0, metavar="MS", help="how much longer it may take: reorders")
    group.add_argument("--mtu", type=int, default=Line.mtu, metavar="BYTES", help="under 1280 no IPv6 (%(default)s)")
    group.add_argument("--drop-fragments", action="store_true", help="lose IP fragments")


def scenario(options: argparse.Namespace) -> ThreePeers:
    """What the options describe."""
    line = Line(
        options.loss / 100, options.delay / 1000, options.jitter / 1000, options.mtu, not options.drop_fragments
    )
    kinds: dict[str, NATKind | None] = {"none": None} | {kind.value: kind for kind in NATKind}

    def home(host: str, nat: str, carrier: str) -> Home:
        return Home(host, kinds[nat], kinds[carrier], options.ipv6, None if line == Line() else line)

    return ThreePeers(
        home("a", options.nat_a, options.carrier_a), home("b", options.nat_b, options.carrier_b), options.turn
    )


def build(options: argparse.Namespace, say: TextIO) -> Laboratory:
    """The laboratory that the options describe; it stands. Prints what it built."""
    lab = Laboratory(*scenario(options).nodes(), name=options.name)
    lab.up()
    lines = ["", draw(lab.plan), ""]
    if options.turn:
        server = start_coturn(lab, "turn", secrets.token_hex(8))
        lines += [f"coturn at {lab.address('turn')}:{PORT}, shared secret {server.secret}, realm {server.realm}", ""]
    lines += [f"{host:4}  {shlex.join(lab.entering(host))} COMMAND" for host in lab.hosts]
    print("\n".join(lines), file=say, flush=True)
    return lab


def up(options: argparse.Namespace) -> int:
    """Build it; with --wait until a signal."""
    lab = build(options, sys.stdout)
    if not options.wait:
        lab.leave_standing()
        again = "" if options.name == "default" else f" --name {options.name}"
        print(f"\nIt stands until: python -m tests.natlab down{again}")
        return 0
    print("\nIt stands until Ctrl-C.", flush=True)
    while True:
        signal.pause()


def down(options: argparse.Namespace) -> int:
    """Whatever stands under that name goes."""
    Laboratory(name=options.name).down()
    return 0


def shell(options: argparse.Namespace) -> int:
    """At a host of the laboratory that stands, or of one built for the time of the shell."""
    lab = Laboratory(name=options.name)
    if not lab.standing:
        with build(options, sys.stderr) as built:
            return shell_at(built, options)
    return shell_at(lab, options)


def shell_at(lab: Laboratory, options: argparse.Namespace) -> int:
    """Run the shell or command; its exit status. Ctrl-C is for the shell, not for this process."""
    if not lab.has(options.host):
        raise DescriptionError(f"there is no {options.host!r} in this laboratory")
    argv = options.argv or [os.environ.get("SHELL", "/bin/sh")]
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.call([*lab.entering(options.host), *argv])
    finally:
        signal.signal(signal.SIGINT, before)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"up": up, "down": down, "shell": shell}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except (NotPermitted, CommandFailed, DescriptionError) as error:
        print(f"natlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
