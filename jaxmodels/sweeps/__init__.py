"""Sweeps: knobs to members, members that differ in numbers alone to one compiled program, results to a table."""
