"""The value of the Kind SIP-REGISTRATION (RFC 7904, 3.2)."""

from __future__ import annotations

from typing import Annotated

from .codec import Choice, length_of_rest, select
from .codes import SipRegistrationType
from .fields import Int, opaque16, rest, uint8, uint16, vec16
from .header import Destination


class SipRegistration(Choice):
    """Where the calls for an Address of Record go."""

    type: Annotated[int, Int(1, SipRegistrationType)] = select()
    length: uint16 = length_of_rest()


class UriRegistration(SipRegistration, case=SipRegistrationType.SIP_REGISTRATION_URI):
    """To another Address of Record."""

    uri: opaque16


class RouteRegistration(SipRegistration, case=SipRegistrationType.SIP_REGISTRATION_ROUTE):
    """To a node, with the contact preferences of RFC 3840."""

    contact_prefs: opaque16 = b""
    destination_list: vec16[Destination]


class UnknownRegistration(SipRegistration, other=True):
    """A type nobody here declared."""

    type: uint8
    data: rest
