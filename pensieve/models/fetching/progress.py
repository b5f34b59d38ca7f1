"""What a long fetch tells whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """One bar over all of a model's bytes. `begin` and `end` come once each, `advance` in between."""

    def begin(self, label: str, total_bytes: int) -> None:
        """The fetch starts; what an earlier one left behind is told by the first `advance`."""
        ...

    def advance(self, count: int) -> None:
        """`count` more bytes are here."""
        ...

    def end(self) -> None:
        """The fetch is over, well or not."""
        ...


class Unseen:
    """Shows nothing: for what is fetched in a moment."""

    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def end(self) -> None: ...
