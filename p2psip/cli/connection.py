"""Speaking to the running node: HTTP with JSON on the Unix socket in its state directory."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import click

from ..options import state_root

Command = TypeVar("Command", bound=Callable[..., Any])

TIMEOUT = 60.0
"""Seconds that a node may take to answer."""
PAGE = 500
"""Items that are asked for at once of a long list."""


class NodeConnection:
    """The running node of one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def ask(self, method: str, path: str, body: Any = None, **values: Any) -> Any:
        """The node's answer to one request, as JSON.

        :param path: as the routes have it; what it names, such as ``{name}``, is put in out of `values`, whatever
            characters that has.  The other values that are not None make the query.
        :raises click.ClickException: no node runs there, or it answered with an error.
        """
        query = {name: v for name, v in values.items() if v is not None and f"{{{name}}}" not in path}
        url = path.format_map({name: quote(str(v), safe="") for name, v in values.items()})
        if query:
            url += "?" + urlencode(query)
        connection = _UnixConnection(str(self.state / "control.sock"))
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, url, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
        except (FileNotFoundError, ConnectionRefusedError) as e:
            raise click.ClickException(f"no node is running with the state directory {self.state}") from e
        except PermissionError as e:
            raise click.ClickException(f"you may not speak to the node of {self.state}") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise click.ClickException(f"the node did not answer: {e}") from e
        finally:
            connection.close()
        if response.status >= 400:
            text = answer.get("error") if isinstance(answer, dict) else None
            raise click.ClickException(text or f"the node answered with status {response.status}")
        return answer

    def pages(self, path: str, key: str, **values: Any) -> Iterator[Any]:
        """Every item of a paged list: `key` names the list within each page, `values` are those of `ask`."""
        offset = 0
        while True:
            page = self.ask("GET", path, offset=offset, limit=PAGE, **values)
            yield from page[key]
            offset += len(page[key])
            if offset >= page["total"] or not page[key]:
                return


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # A socket's path may have 107 bytes at the most; reached by way of its directory it always fits.
        directory = os.open(Path(self._path).parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{Path(self._path).name}")
        finally:
            os.close(directory)


def _state(state: Path | None) -> Path:
    """The state directory given, or the only one there is."""
    if state is not None:
        return state
    root = state_root()
    found = sorted(p.parent for p in root.glob("*/control.sock")) or sorted(
        p.parent for p in root.glob("*/node.key")
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise click.ClickException(f"there is no overlay in {root}; name the state directory by --state")
    names = "\n".join(f"  --state {path}" for path in found)
    raise click.ClickException(f"there are several overlays; choose one:\n{names}")


def with_node(command: Command) -> Command:
    """Give a command the option --state and, as its first argument, the connection to that node."""

    def opened(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> NodeConnection:
        return NodeConnection(_state(value))

    option = click.option(
        "--state",
        "node",
        type=click.Path(path_type=Path, file_okay=False),
        callback=opened,
        help="State directory of the node [default: the only one there is].",
    )
    return option(command)
