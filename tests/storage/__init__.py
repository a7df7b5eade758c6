"""Tests of p2psip.storage."""
