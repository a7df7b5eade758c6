"""Whether a phone is behind a NAT, by what it says of itself and by where its packets come from."""

from __future__ import annotations

from ipaddress import ip_address

from ..errors import SIPParseError
from ..interfaces import Source
from ..uri import SIPURI, parse_uri
from .sdp import Description


def has_other_address(said: str, host: str) -> bool:
    """Whether `said`, an address or name, cannot be where somebody is whose packets come from `host`.

    An address of the internet is believed, whoever says it: a NAT hides others, and gateways have media elsewhere.
    """
    try:
        address, source = ip_address(said), ip_address(host.partition("%")[0])
    except ValueError:
        return True
    if address.is_unspecified:
        return False
    return address != source and not address.is_global


def is_behind_nat(description: Description, source: Source) -> bool:
    """Whether media that are sent to where `description` says would not reach the phone at `source`."""
    return any(has_other_address(host, source.host) for host in description.hosts)


def contact_is_behind_nat(uri: str, host: str) -> bool:
    """Whether the phone with this contact, which registered from `host`, is behind a NAT."""
    try:
        contact = parse_uri(uri)
    except SIPParseError:
        return True
    return not isinstance(contact, SIPURI) or has_other_address(contact.address, host)
