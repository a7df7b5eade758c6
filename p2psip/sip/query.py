"""How one registrar asks another for its bindings: in plain SIP, a REGISTER without Contact (RFC 3261 §10.2.3)."""

from __future__ import annotations

from urllib.parse import quote

from .errors import SIPParseError
from .headers import parse_name_addr
from .interfaces import Contact
from .message import Request, Response

_MOST_CONTACTS = 100
_USER_CHARACTERS = "-_.!~*'()&=+$,;?/"


def binding_query(aor: str) -> Request:
    """A request for the bindings of `aor` (user@domain).  The edge adds what it lacks to go out."""
    domain = aor.rpartition("@")[2]
    request = Request("REGISTER", f"sip:{domain}")
    request.add("To", f"<{aor_uri(aor)}>")
    request.add("From", f"<{aor_uri(aor)}>")
    return request


def aor_uri(aor: str) -> str:
    """The SIP URI of an AOR (user@domain)."""
    user, _, domain = aor.rpartition("@")
    return f"sip:{quote(user, safe=_USER_CHARACTERS)}@{domain}"


def contacts_of(response: Response) -> list[Contact]:
    """The contacts that a response lists, to a query or with a 302; what is malformed is left out."""
    found = []
    for value in _list(response)[:_MOST_CONTACTS]:
        try:
            contact = parse_name_addr(value)
            contact.uri  # noqa: B018
            found.append(Contact(contact.uri_text, contact.q, contact.expires or 0))
        except SIPParseError:
            continue
    return found


def _list(response: Response) -> list[str]:
    try:
        return response.values("Contact")
    except SIPParseError:
        return []
