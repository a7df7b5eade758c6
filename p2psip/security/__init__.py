"""Certificates, identities, signatures, whom an overlay believes: see ``docs/architecture/security.rst``."""
