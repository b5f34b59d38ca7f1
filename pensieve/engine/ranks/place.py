"""Which rank of a model a process is, and where all of them meet; passed to it as JSON."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pensieve.engine.planning.hostfile import Rendezvous


@dataclass(frozen=True, slots=True)
class RankPlace:
    rank: int
    names: tuple[str, ...]  # of the machines, for people; in the order of ranks
    rendezvous: Rendezvous

    @property
    def ranks(self) -> int:
        return len(self.names)

    def of(self, rank: int) -> "RankPlace":
        return replace(self, rank=rank)

    def dumps(self) -> str:
        return json.dumps(asdict(self))


def loads(text: str) -> RankPlace:
    """Parse what `RankPlace.dumps` wrote."""
    fields: dict[str, Any] = json.loads(text)
    meeting = fields["rendezvous"]
    rendezvous = Rendezvous(
        meeting["backend"], *map(_tuples, (meeting["addresses"], meeting["devices"]))
    )
    return RankPlace(fields["rank"], tuple(fields["names"]), rendezvous)


def _tuples(lists: list[list[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, lists))
