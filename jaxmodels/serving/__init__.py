"""Serving: a trained model that answers requests. The engine writes texts for many requests at once."""
