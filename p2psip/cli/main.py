"""``p2psip``: all commands."""

from __future__ import annotations

import click

from .. import __version__
from .accounts import device, invite, user
from .authority import authority
from .decode import decode
from .node import fetch, leave, lookup, ping, status, store


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="p2psip")
def main() -> None:
    """Operate a P2PSIP overlay: users and phones, nodes, and what is stored.

    A node itself is started with `twistd -n p2psip --overlay NAME`.
    """


for command in (user, device, invite, status, lookup, ping, fetch, store, leave, authority, decode):
    main.add_command(command)
