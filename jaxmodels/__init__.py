"""jaxmodels: every model of deep learning as a pure function, and one runner that trains any of them."""

__version__ = "0.1.0"
