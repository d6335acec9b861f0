"""What was said in recordings, as text with times."""
