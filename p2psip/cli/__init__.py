"""The commands of operators and users: ``p2psip``."""
