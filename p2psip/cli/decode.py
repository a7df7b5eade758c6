"""``p2psip decode``: a RELOAD message or frame as JSON; needs no node."""

from __future__ import annotations

import binascii
from typing import BinaryIO

import click

from ..config.kinds import REGISTERED
from ..wire.codec import DecodeError, WireContext
from ..wire.describe import describe
from .output import print_json

MAXIMUM = 1 << 20


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--node-id-length", default=16, show_default=True, type=click.IntRange(16, 20), help="Bytes of a Node-ID."
)
def decode(file: BinaryIO, node_id_length: int) -> None:
    """Print a RELOAD message or frame as JSON.

    FILE (- or nothing for standard input) holds it in hex or binary. No node is needed.
    """
    content = file.read(MAXIMUM + 1)
    if len(content) > MAXIMUM:
        raise click.ClickException(f"a message has at most {MAXIMUM} bytes")
    models = {kind.kind_id: kind.data_model for kind in REGISTERED.values()}
    try:
        print_json(describe(_bytes(content), WireContext(node_id_length, models)))
    except DecodeError as e:
        raise click.ClickException(str(e)) from e


def _bytes(content: bytes) -> bytes:
    """The message itself: hex, with any white space, is told from binary by having no other bytes."""
    try:
        return binascii.unhexlify(b"".join(content.split()))
    except binascii.Error:
        return content
