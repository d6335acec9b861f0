"""A console that tests can ask what was said."""

from jaxmodels.console import Console


class Listening(Console):
    """A console that remembers its warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)
