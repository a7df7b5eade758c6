"""Real processes, sockets on loopback addresses and real phones; ``tox -e integration``."""
