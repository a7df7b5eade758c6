"""What this proxy writes into its Record-Route, so that it needs to remember no dialog.

A token names both ends of a dialog, as seen from here, and has a MAC over them and the Call-ID.  So a request within
the dialog finds its way without any state, after a restart too, and nobody can use it for another dialog: it is no open
relay.  (In the manner of the flow tokens of RFC 5626 §5.2.)
"""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import blake2s
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, NamedTuple

from ..interfaces import Source

_MAC_BYTES: Final = 9
_TAG_BYTES: Final = 4
_ANYWHERE, _NODE, _FLOW = 0, 1, 2
_TRANSPORTS: Final = ("UDP", "TCP", "TLS")
MEDIA: Final = 1
"""A flag: the media of the call pass through the media relay of this node."""
_LONGEST: Final = 128


class End(NamedTuple):
    """One end of a dialog, as seen from here: a phone at `flow`, or the node `node`; neither: by its own routes."""

    flow: Source | None = None
    node: bytes = b""


NOWHERE: Final = End()


class Token(NamedTuple):
    """What a token says."""

    caller: End
    callee: End
    from_tag: bytes
    """A digest of the caller's tag, which shows the direction of a request."""
    flags: int = 0

    def direction(self, from_tag: str | None) -> tuple[End, End]:
        """The end that a request with this From tag comes from, and the one that it goes to."""
        if digest_of_tag(from_tag) == self.from_tag:
            return self.caller, self.callee
        return self.callee, self.caller


class TokenMint:
    """Makes and reads tokens; `key` is the node's own secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, token: Token, call_id: str) -> str:
        """The token as the user part of a URI."""
        content = bytes((token.flags,)) + token.from_tag + _encode(token.caller) + _encode(token.callee)
        return base64.urlsafe_b64encode(self._mac(content, call_id) + content).rstrip(b"=").decode()

    def read(self, text: str, call_id: str) -> Token | None:
        """What `text` says; None when it is no token of ours, or of another dialog."""
        if len(text) > _LONGEST:
            return None
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return None
        mac, content = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(content, call_id)):
            return None
        tag_ends = 1 + _TAG_BYTES
        caller, position = _decode(content, tag_ends)
        callee, _ = _decode(content, position)
        return Token(caller, callee, content[1:tag_ends], content[0])

    def _mac(self, content: bytes, call_id: str) -> bytes:
        call = call_id.encode("utf-8", "surrogateescape")
        return blake2s(content + call, digest_size=_MAC_BYTES, key=self._key).digest()


def digest_of_tag(tag: str | None) -> bytes:
    """What a token keeps of a From tag."""
    return blake2s((tag or "").encode("utf-8", "surrogateescape"), digest_size=_TAG_BYTES).digest()


def _encode(end: End) -> bytes:
    if end.node:
        return bytes((_NODE, len(end.node))) + end.node
    if end.flow is None:
        return bytes((_ANYWHERE,))
    host = end.flow.host.partition("%")[0]
    address = inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    head = bytes((_FLOW + _TRANSPORTS.index(end.flow.transport), len(address)))
    return head + address + end.flow.port.to_bytes(2, "big")


def _decode(content: bytes, position: int) -> tuple[End, int]:
    kind = content[position]
    if kind == _ANYWHERE:
        return End(), position + 1
    begin = position + 2
    end = begin + content[position + 1]
    if kind == _NODE:
        return End(node=content[begin:end]), end
    address = content[begin:end]
    host = inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)
    port = int.from_bytes(content[end : end + 2], "big")
    return End(Source(host, port, _TRANSPORTS[kind - _FLOW])), end + 2
