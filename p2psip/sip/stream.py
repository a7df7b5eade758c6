"""SIP messages out of a stream of bytes (RFC 3261 §18.3, keep-alives of RFC 5626 §3.5.1)."""

from __future__ import annotations

from enum import Enum

from .errors import SIPParseError
from .message import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    Request,
    Response,
    check,
    content_length,
    parse_head,
)


class KeepAlive(Enum):
    """What stands between messages on a stream."""

    PING = b"\r\n\r\n"
    """Asks for a pong."""
    PONG = b"\r\n"


class StreamParser:
    """Cuts one direction of a connection into messages.

    A message that is cut off well but wrong comes as a SIPParseError in its place.  When the place of the next
    message is lost, the last item is a SIPParseError that is `fatal`, and the parser takes nothing more.
    """

    def __init__(self, most_head: int = MOST_HEAD_BYTES, most_body: int = MOST_BODY_BYTES) -> None:
        self._most_head = most_head
        self._most_body = most_body
        self._buffer = bytearray()
        self._searched = 0
        self._message: Request | Response | None = None
        self._problem: SIPParseError | None = None
        self._body_length = 0
        self.broken = False

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._message is not None or not self._between_messages()

    def receive(self, data: bytes) -> list[Request | Response | SIPParseError | KeepAlive]:
        """Take `data`; the messages that it completes, in order."""
        items: list[Request | Response | SIPParseError | KeepAlive] = []
        if self.broken:
            return items
        self._buffer += data
        try:
            while (item := self._next()) is not None:
                items.append(item)
        except SIPParseError as error:
            error.fatal = self.broken = True
            self._buffer.clear()
            items.append(error)
        return items

    def _next(self) -> Request | Response | SIPParseError | KeepAlive | None:
        """The next item; None when more bytes are needed; raises when framing is lost."""
        if self._message is None:
            keep_alive = self._skip_line_breaks()
            if keep_alive is not None:
                return keep_alive
            if not self._read_head():
                return None
        if len(self._buffer) < self._body_length:
            return None
        message, problem = self._message, self._problem
        assert message is not None
        message.body = bytes(self._buffer[: self._body_length])
        del self._buffer[: self._body_length]
        self._message = self._problem = None
        if problem is None:
            try:
                check(message)
            except SIPParseError as error:
                problem = error
        return problem or message

    def _between_messages(self) -> bool:
        """Whether nothing of a message is there, at most the beginning of a ping."""
        return bytes(self._buffer[:4]) in (b"", b"\r", b"\r\n", b"\r\n\r")

    def _skip_line_breaks(self) -> KeepAlive | None:
        """A double CRLF is a ping; one that is followed by something else is a pong, or an idle phone's own."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n\r\n"):
            del buffer[:4]
            return KeepAlive.PING
        if buffer.startswith(b"\r\n") and (len(buffer) > 3 or bytes(buffer[2:3]) not in (b"", b"\r")):
            del buffer[:2]
            return KeepAlive.PONG
        return None

    def _read_head(self) -> bool:
        """Whether the header fields are complete; then `_message` and `_body_length` are set."""
        buffer = self._buffer
        if self._between_messages():
            return False
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            if len(buffer) > self._most_head:
                raise SIPParseError("the header fields are too large", 513)
            if not 33 <= buffer[0] <= 126:
                raise SIPParseError("bytes that begin no SIP message")
            self._searched = max(0, len(buffer) - 3)
            return False
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        self._searched = 0
        try:
            message = parse_head(head)
        except SIPParseError as error:
            if error.message is None:
                raise
            message, self._problem = error.message, error
        if "Content-Length" not in message.headers:
            # RFC 3261 s18.3: "The Content-Length header field MUST be used with stream oriented transports."
            raise SIPParseError("no Content-Length on a stream", message=message)
        self._body_length = content_length(message)
        if self._body_length > self._most_body:
            raise SIPParseError("the body is too large", 413, message)
        self._message = message
        return True
