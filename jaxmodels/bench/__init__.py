"""The benchmark of accelerators: a fixed suite of models, measured so that the numbers can be believed."""
