"""Plans for hardware that is not here: memory, FLOPs, communication and time of an experiment's step."""
