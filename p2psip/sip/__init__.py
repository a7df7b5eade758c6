"""SIP (RFC 3261): messages and transactions without I/O, registrar and redirect server, and the edge to sockets."""
