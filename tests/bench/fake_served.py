"""A server on a fake clock: it takes as long as its rates say, and caches what it has answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pensieve.bench.answers import Answer, Ask
from pensieve.daemon.health_client import Health
from pensieve.engine.generation import (
    DraftCounts,
    EngineStats,
    SourceCounts,
    SpeculationState,
)

READY = Health("ready", model="tiny", context_tokens=32_768, version="0.1.0", device="cpu")
PAYS = SpeculationState("pays", 8, 2.0)
OFF = SpeculationState("setting")


@dataclass
class FakeClock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class FakeServed:
    """One word is one token. Rates: tokens/s. Its cache outlives it, as prefixes on disk do."""

    clock: FakeClock
    prefill: float = 1000.0
    decode: float = 50.0
    speculation: SpeculationState = OFF
    context_tokens: int = 32_768
    in_flight: int = 0
    cached: set[str] = field(default_factory=set)
    asked: list[list[Ask]] = field(default_factory=list)
    drafted: int = 0

    def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
        self.asked.append(list(asks))
        answers = [self._answer(ask) for ask in asks]
        lasted_s = max(answer.end_s for answer in answers)
        self.clock.sleep(min(lasted_s, timeout_s))
        if lasted_s > timeout_s:
            raise TimeoutError
        return answers

    def _answer(self, ask: Ask) -> Answer:
        prompt = len(ask.text.split())
        cached = prompt - 1 if ask.text in self.cached else 0
        self.cached.add(ask.text)
        first_s = (prompt - cached) / self.prefill + 1 / self.decode
        end_s = first_s + (ask.max_tokens - 1) / self.decode
        self.drafted += 3 if self.speculation.is_on else 0
        return Answer((first_s, end_s), end_s, prompt, cached, ask.max_tokens)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def health(self) -> Health:
        drafts = DraftCounts(lookup=SourceCounts(self.drafted, self.drafted // 3))
        return replace(
            READY,
            context_tokens=self.context_tokens,
            in_flight=self.in_flight,
            speculation=self.speculation,
            engine=EngineStats(None, "full precision", 1, 1, 1, drafts=drafts),
        )
