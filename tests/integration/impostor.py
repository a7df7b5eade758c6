"""A node that shows the certificate of another on its links, once that is in a file.  Arguments: the file; twistd's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL
from twisted.scripts.twistd import run

from p2psip.links.handshake import Contexts

stolen = Path(sys.argv[1])
set_up, current = Contexts._set_up, Contexts.current


def forge(contexts: Contexts, context: Any, certificate: bytes) -> None:
    """Set `context` up, and put the stolen certificate in the place of the node's own."""
    set_up(contexts, context, certificate)
    if stolen.exists():
        pem = stolen.read_bytes()
        context.use_certificate(load_pem_x509_certificate(pem))
        context.use_privatekey(load_pem_private_key(pem, None))


def anew(contexts: Contexts) -> SSL.Context:
    """A context for each connection."""
    contexts._certificate = b""
    return current(contexts)


Contexts._set_up, Contexts.current = forge, anew  # type: ignore[method-assign]
sys.argv = sys.argv[2:]
run()
