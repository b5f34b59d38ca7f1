"""The interface by which fetching and verifying report progress to a display."""

from typing import Protocol


class Progress(Protocol):
    """One progress bar over all bytes: `begin`, any number of `advance`, `end`."""

    def begin(self, label: str, total_bytes: int) -> None:
        """Start; the first `advance` reports the bytes of an earlier, interrupted fetch."""
        ...

    def advance(self, count: int) -> None:
        """Report `count` more bytes."""
        ...

    def end(self) -> None:
        """Finish, successfully or not."""
        ...


class SilentProgress:
    """For fetches too short to show."""

    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def end(self) -> None: ...
