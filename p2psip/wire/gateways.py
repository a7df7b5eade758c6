"""The value of this implementation's own Kind for gateways to the telephone network; no RFC has it."""

from __future__ import annotations

from .codec import Struct
from .fields import opaque8, uint16, vec16


class Gateway(Struct):
    """What a gateway takes out: numbers with these prefixes, ASCII; of several gateways that with the lowest
    `priority` is asked first."""

    priority: uint16
    prefixes: vec16[opaque8]
