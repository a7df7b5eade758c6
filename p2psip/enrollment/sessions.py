"""Who is signed in at the web page.  No I/O: `now` is in seconds, tokens come from `secrets`."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from .settings import PhoneSettings

MOST: Final = 10_000
IDLE: Final = 900.0
"""Seconds without a request after which a session ends."""
LONGEST: Final = 8 * 3600.0
MOST_OF_ONE: Final = 10
"""Sessions of one user."""


@dataclass(slots=True)
class Session:
    """One person, signed in with one browser."""

    user: str
    created: float
    """When the account was made: one of the same name that came later is another."""
    began: float
    seen: float
    form_token: str = field(repr=False)
    """Stands in each form, so that no other page can send it."""
    shown: PhoneSettings | None = field(default=None, repr=False)
    """A new device's, to be shown once."""


class Sessions:
    """The sessions of all, by the token in their cookie; of the token only a digest is kept.

    When there are too many, of one user or of all, the one that was idle longest ends.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, user: str, created: float, now: float) -> str:
        """A new session of the account that was `created` then; answers the token of its cookie."""
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = Session(user, created, now, now, secrets.token_urlsafe(32))
        own = [key for key, session in self._sessions.items() if session.user == user]
        for key in own[:-MOST_OF_ONE]:
            del self._sessions[key]
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: str, now: float) -> Session | None:
        """The session of a cookie, if it has not ended."""
        key = _digest(token)
        session = self._sessions.get(key)
        if session is None:
            return None
        if now - session.seen > IDLE or now - session.began > LONGEST:
            del self._sessions[key]
            return None
        session.seen = now
        self._sessions.move_to_end(key)
        return session

    def end(self, token: str) -> None:
        """Sign out."""
        self._sessions.pop(_digest(token), None)

    # -- forms before there is a session

    def form_token(self, cookie: str) -> str:
        """What the sign-in form has to bring, beside a random cookie that was set with it."""
        return hmac.new(self._key, cookie.encode(), sha256).hexdigest()

    def is_form_token(self, cookie: str, token: str) -> bool:
        """Whether a form and a cookie belong together."""
        return bool(cookie) and hmac.compare_digest(self.form_token(cookie).encode(), token.encode())


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
