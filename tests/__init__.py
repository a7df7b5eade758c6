"""The tests of p2psip: this tree mirrors the package; ``python -m tests unit`` runs it with trial."""
