"""File formats, as pipelines or arrays."""
