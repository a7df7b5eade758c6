"""Which of a forked request's responses goes back (RFC 3261 §16.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..message import Response

_SAY_MORE: Final = (401, 407, 415, 420, 484)
"""Responses after which a caller can do better; of 4xx these go first (RFC 3261 §16.7, step 6)."""
_CHALLENGES: Final = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}
_MOST_CHALLENGES: Final = 20


def best_response(responses: Sequence[Response]) -> Response:
    """The one of the final responses, none of them 2xx, that says most: a 6xx, else one of the lowest class.

    With a 401 or 407 go the challenges of all others (step 7); a 503 goes back as 500, since it is about one branch,
    not about us (step 6).
    """
    best = min(responses, key=_rank)
    header = _CHALLENGES.get(best.status)
    if header is not None:
        _gather_challenges(best, responses)
    if best.status == 503:
        best.status, best.reason = 500, "Server Internal Error"
        best.remove("Retry-After")
    return best


def _rank(response: Response) -> tuple[int, int]:
    status = response.status
    if status >= 600:
        return 0, 0
    if status // 100 == 4:
        # A branch that fell silent, or had a loop, says less than one where somebody answered.
        return 4, 0 if status in _SAY_MORE else 2 if status in (408, 430, 480, 482, 487) else 1
    return status // 100, status == 503


def _gather_challenges(best: Response, responses: Sequence[Response]) -> None:
    for header in _CHALLENGES.values():
        found = [
            value
            for response in responses
            if response.status in _CHALLENGES
            for value in response.headers.get(header, ())
        ]
        if found:
            best.headers[header] = list(dict.fromkeys(found))[:_MOST_CHALLENGES]
