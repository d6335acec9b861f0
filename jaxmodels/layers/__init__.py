"""Layers that several models use unchanged."""
