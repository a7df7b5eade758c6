"""What goes wrong in SIP, each with the response that tells the other side."""

from __future__ import annotations

from typing import Any


class SIPParseError(ValueError):
    """Bytes that are no SIP message, or a message that breaks a rule of the grammar (RFC 3261 §25).

    `status` is the response that a request deserves for it; `message` is what could be read, if anything: enough
    for a response when it is a Request with its Via.  `fatal`: on a stream, the place where the next message
    begins is lost.
    """

    def __init__(
        self, what: str, status: int = 400, message: Any = None, fatal: bool = False
    ) -> None:
        super().__init__(what)
        self.what = what
        self.status = status
        self.message = message
        self.fatal = fatal


class SIPListenError(Exception):
    """An address or port on which nothing can listen; the text names it and says why."""

    def __init__(self, transport: str, address: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen for SIP on {transport} {address} port {port}: {reason}")
        self.transport = transport
        self.address = address
        self.port = port


class SIPFailure(Exception):
    """A request that is answered with an error response.

    Raise it anywhere while a request is served: `status` and `reason` become the response, `headers` (name, value)
    go along.
    """

    status = 500

    def __init__(
        self, status: int | None = None, reason: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.status = status if status is not None else type(self).status
        self.reason = reason
        self.headers = headers
        super().__init__(f"{self.status} {reason or ''}".rstrip())


class UnknownUser(SIPFailure):
    """No account has that name."""

    status = 404


class NotRegistered(SIPFailure):
    """The user exists, but no phone is registered at present."""

    status = 480


class NoSuchDomain(SIPFailure):
    """The DNS does not know the domain of a URI."""

    status = 404

    def __init__(self) -> None:
        super().__init__(reason="No Such Domain")


class NoServer(SIPFailure):
    """A domain has no SIP server, or none that can be reached as the URI demands."""

    status = 480

    def __init__(self) -> None:
        super().__init__(reason="No SIP Server")


class Refused(SIPFailure):
    """Whoever knows the secrets refused these credentials."""

    status = 403


class Unavailable(SIPFailure):
    """Something that the answer depends on cannot be reached now; `retry_after` (seconds) says when to try again."""

    status = 503

    def __init__(self, reason: str | None = None, retry_after: int = 30) -> None:
        super().__init__(503, reason, (("Retry-After", str(retry_after)),))
        self.retry_after = retry_after


class MessageTooLarge(SIPFailure):
    """A request of ours has more bytes than can be sent where it should go (RFC 3261 §21.5.7)."""

    status = 513


class TransactionTimeout(SIPFailure):
    """No final response came to a request of ours (RFC 3261 §8.1.3.1)."""

    status = 408


class TransportFailure(SIPFailure):
    """A request of ours could not be sent, or its connection broke (RFC 3261 §8.1.3.1)."""

    status = 503


class ServerUntrusted(TransportFailure):
    """A server did not show the certificate of the domain that it should be of; the text says what is wrong."""

    def __init__(self, complaint: str) -> None:
        super().__init__(reason="Server Certificate Not Trusted")
        self.complaint = complaint
