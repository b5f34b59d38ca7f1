"""Tests drafts of answers with a grammar: forced tokens and lookups, cut to what it allows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from pensieve.engine.generation import Generation, Sampling
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.speculation.draft_source import Proposal
from pensieve.engine.speculation.drafter import Drafter, Speculation, lookup_drafter
from tests.engine import grammar_cases as cases
from tests.mlx.speculation.test_decoding import EverythingFed
from tests.mlx.test_grammar import FORCED, Bench, check_call
from tests.support import tiny_models

SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=1.0, seed=4),
    Sampling(temperature=0.7, top_p=0.9, seed=5),
]


class AnyToken:
    """Proposes what no grammar asks for."""

    def extend(self, tokens: Sequence[int]) -> None:
        pass

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        return Proposal("any", tuple(range(20, 20 + max_tokens)), 8)


DRAFTERS: dict[str, Callable[[Generation], Drafter]] = {
    "forced": lambda _: Drafter(),
    "lookup": partial(lookup_drafter, 1000),
    "liar": lambda _: Drafter([AnyToken()]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def make_bench(folder: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(policy: EverythingFed | None = None, kind: str = "forced") -> Bench:
        speculation = Speculation(policy, DRAFTERS[kind]) if policy else None
        benches.append(Bench(folder, partial(BatchBackend, speculation=speculation)))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


def generations(bench: Bench) -> dict[int, Generation]:
    """Return calls with a grammar, calls within text, and an answer without any grammar."""
    in_text = cases.in_text(dict(cases.TOOL_SETS["files"]), "+", free="/[a-z <]{0,9}/")
    larks = [FORCED, FORCED, in_text, None]
    return {
        key: bench.generation(lark, key, max_tokens=150, sampling=SAMPLINGS[key % 3])
        for key, lark in enumerate(larks)
    }


@pytest.mark.parametrize("kind", DRAFTERS)
def test_answers_with_grammars_and_drafts_equal_those_without(
    make_bench: Callable[..., Bench], kind: str
) -> None:
    plain = make_bench()
    plain.run(generations(plain))
    policy = EverythingFed()
    bench = make_bench(policy, kind)
    bench.run(generations(bench))
    for key in plain.events:
        assert bench.tokens(key) == plain.tokens(key)
        assert bench.events[key][-1] == plain.events[key][-1]
    assert policy.accepted > 40
    alone = make_bench(EverythingFed(), kind)
    alone.run({1: generations(alone)[1]})
    assert alone.tokens(1) == plain.tokens(1)


def test_forced_tokens_are_never_refused_and_save_steps(make_bench: Callable[..., Bench]) -> None:
    policy = EverythingFed()
    bench = make_bench(policy)
    bench.run({0: bench.generation(FORCED)})
    check_call(bench.text(0), dict(cases.TOOL_SETS["files"]))
    assert policy.drafted > 10
    # A wrong guess of the last token loses the drafts after it; nothing else does.
    refused = [row for _, rows in policy.settled for row in rows if row.accepted < len(row.draft)]
    assert refused == []
    assert len(policy.plans) < len(bench.tokens(0))
