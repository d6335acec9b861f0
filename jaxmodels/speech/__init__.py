"""Speech in use: what was said in recordings, as text with times; and texts that a voice says."""
