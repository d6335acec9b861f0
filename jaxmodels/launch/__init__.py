"""Joining processes of a run, and starting them: on this computer, on a cluster, again after a loss."""
