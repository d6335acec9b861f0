"""Data as a function of the step."""
