"""Losses and metrics, one kind of problem in each file."""
