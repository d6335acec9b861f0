"""learned(): a value that an experiment learns from its data, computed once in a run's life; see
jaxmodels.runs.learned."""

from jaxmodels.runs.learned import learned

__all__ = ["learned"]
