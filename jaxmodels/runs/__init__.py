"""A run's folder: its files, and what they mean."""
