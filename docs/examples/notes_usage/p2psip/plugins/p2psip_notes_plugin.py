"""Offers the notes to `twisted.plugin`; everything else is in ``p2psip_notes``."""

from __future__ import annotations

from p2psip_notes import NotesFactory, OwnKey

notes = NotesFactory()
own_key = OwnKey()
