"""The proxy: passes requests on to where users are, and responses back (RFC 3261 §16)."""
