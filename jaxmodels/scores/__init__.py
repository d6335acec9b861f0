"""Metrics that are no mean over examples, computed on the host."""
