"""Weights of other libraries as our parameters, and back.

Nothing is ever unpickled, and no file is trusted before it is checked.
"""
