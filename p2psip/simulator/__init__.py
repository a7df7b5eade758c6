"""Overlays of thousands of real nodes in one process and in simulated time, and what is measured of them."""
