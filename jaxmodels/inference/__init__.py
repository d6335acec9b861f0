"""A trained model in use: loaded from a run or a folder of weights, and asked."""
