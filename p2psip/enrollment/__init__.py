"""How nodes and users come by their credentials: see ``docs/architecture/enrollment.rst``."""
