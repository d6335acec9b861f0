"""Weights from elsewhere as our parameters, and back. Nothing is ever unpickled; a file is hostile until it is checked."""
