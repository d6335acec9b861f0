"""Sweeps: knobs become members, members that differ in floats share a program, results become a table."""
