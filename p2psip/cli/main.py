"""``p2psip``: all commands."""

from __future__ import annotations

import csv
import errno
from typing import Any

import click

from .. import __version__
from .accounts import device, invite, user
from .authority import authority
from .calls import forward
from .decode import decode
from .directory import directory
from .node import fetch, leave, lookup, ping, probe, status, store


class _Commands(click.Group):
    """All commands; what is wrong with a file is told, by whichever of them, in one line as all else is."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "simulate"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "simulate":
            # It needs all of a node, which takes as long to load as all other commands together take to run.
            from .simulate import simulate

            return simulate
        return super().get_command(ctx, cmd_name)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UnicodeError as e:
            raise click.ClickException(f"this is not UTF-8 text: {e}") from e
        except csv.Error as e:
            raise click.ClickException(f"the file is not CSV: {e}") from e
        except OSError as e:
            if e.errno == errno.EPIPE:  # click ends quietly where nobody reads on
                raise
            raise click.ClickException(str(e)) from e


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="p2psip")
def main() -> None:
    """Operate a P2PSIP overlay: users and phones, nodes, and what is stored.

    A node itself is started with `twistd -n p2psip --overlay NAME`.
    """


for command in (
    *(user, device, forward, invite, directory, status, lookup, ping, probe, fetch, store, leave),
    *(authority, decode),
):
    main.add_command(command)
