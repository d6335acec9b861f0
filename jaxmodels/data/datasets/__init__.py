"""Data sets, one a module; nothing here downloads."""
