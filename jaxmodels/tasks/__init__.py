"""Losses and metrics, one kind of problem per file."""
