"""What an experiment would cost on hardware that is not there: memory, FLOPs, communication and time of its step."""
