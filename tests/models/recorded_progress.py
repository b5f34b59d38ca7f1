"""The reports of a fetch, as a list."""

from dataclasses import dataclass, field


@dataclass
class RecordedProgress:
    label: str = ""
    total_bytes: int = 0
    counts: list[int] = field(default_factory=list)
    ended: int = 0

    def begin(self, label: str, total_bytes: int) -> None:
        self.label, self.total_bytes = label, total_bytes

    def advance(self, count: int) -> None:
        self.counts.append(count)

    def end(self) -> None:
        self.ended += 1
