"""The configuration document: its content, grammar, signatures.  See ``docs/architecture/config.rst``."""
