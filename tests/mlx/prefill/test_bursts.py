"""Short prompts that arrive together: one pass for all, and the answers that each gets alone."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from mlx import nn

from pensieve.engine.generation import Generation, Grammar, Sampling
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.scheduling.backend import PrefillProgress, Sampled, SequenceFailed
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.errors import GrammarError
from tests.mlx.scheduler_bench import GREEDY, Bench, prompt_of, reference
from tests.support import tiny_architectures

PROMPTS = [prompt_of(length, seed) for seed, length in enumerate((3, 40, 17, 64, 1), 1)]
RAGGED = ("llama", "qwen3", "phi3")


class RecordedModel(nn.Module):
    """A model that records the shape of each pass."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.layers = model, model.layers
        self.passes = deque()

    def __call__(self, tokens: Any, cache: Any = None) -> Any:
        if cache is not None:
            self.passes.append(tuple(tokens.shape))
        return self.model(tokens, cache=cache)


@pytest.fixture(scope="module", params=RAGGED)
def model(request: pytest.FixtureRequest):
    return tiny_architectures.build(request.param)


class ChunksOf48(ChunkSizer):
    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        return 48

    chunk_of_several = next_chunk


def backend_over(model, chunks: ChunkSizer, precision: KVPrecision = FULL) -> BatchBackend:
    return BatchBackend(model, CacheMaker(model, is_ragged=True, precision=precision), chunks)


def answers(
    backend: BatchBackend, generations: Sequence[Generation], *, together: bool
) -> list[list[int]]:
    """Return the answers to generations that begin together, or one after another."""
    drawn: dict[int, list[int]] = {key: [] for key in range(len(generations))}
    waiting = list(enumerate(generations))
    running = 0
    while waiting or running:
        while waiting and (together or not running):
            backend.insert(*waiting.pop(0), None)
            running += 1
        for outcome in backend.step():
            if isinstance(outcome, Sampled):
                drawn[outcome.key] += outcome.tokens
                running -= outcome.finish is not None
    return list(drawn.values())


def test_prompts_that_arrive_together_share_one_pass(model) -> None:
    recorded = RecordedModel(model)
    backend = backend_over(recorded, ChunkSizer(256))
    for key, prompt in enumerate(PROMPTS):
        backend.insert(key, Generation(prompt, 4, sampling=GREEDY), None)
    recorded.passes.clear()
    outcomes = backend.step()
    assert outcomes[:5] == [
        PrefillProgress(key, len(prompt), is_done=True) for key, prompt in enumerate(PROMPTS)
    ]
    assert [(one.key, len(one.tokens)) for one in outcomes[5:]] == [(key, 1) for key in range(5)]
    assert list(recorded.passes) == [(sum(map(len, PROMPTS)), 1)]
    backend.step()
    assert list(recorded.passes)[1:] == [(len(PROMPTS), 1)]


def test_whole_short_prompt_is_one_pass(model) -> None:
    recorded = RecordedModel(model)
    backend = backend_over(recorded, ChunkSizer(256))
    backend.insert(1, Generation(prompt_of(100), 4, sampling=GREEDY), None)
    recorded.passes.clear()
    progress, first = backend.step()
    assert progress == PrefillProgress(1, 100, is_done=True)
    assert first == Sampled(1, tuple(reference(model, prompt_of(100), 1)))
    assert list(recorded.passes) == [(1, 100)]


SETTINGS = [
    GREEDY,
    Sampling(temperature=1.0, seed=5),
    Sampling(temperature=0, repetition_penalty=1.5),
    Sampling(temperature=0.7, top_p=0.9, seed=-2),
    GREEDY,
]


def test_answers_of_a_burst_equal_those_alone_whatever_their_sampling(model) -> None:
    generations = [
        Generation(prompt, 12, sampling=sampling)
        for prompt, sampling in zip(PROMPTS, SETTINGS, strict=True)
    ]
    alone = answers(backend_over(model, ChunkSizer(256)), generations, together=False)
    assert answers(backend_over(model, ChunkSizer(256)), generations, together=True) == alone
    assert alone[0] == reference(model, PROMPTS[0], 12)


@pytest.mark.parametrize("bits", [8, 4])
def test_answers_of_a_burst_equal_those_alone_over_quantized_caches(model, bits: int) -> None:
    precision = KVPrecision(bits)
    generations = [Generation(prompt, 12, sampling=GREEDY) for prompt in PROMPTS]
    alone = answers(backend_over(model, ChunkSizer(256), precision), generations, together=False)
    burst = answers(backend_over(model, ChunkSizer(256), precision), generations, together=True)
    assert burst == alone


def test_caches_after_a_burst_are_continued_by_the_next_turns(model) -> None:
    bench = Bench(model)
    firsts = bench.run(*PROMPTS[1:4])
    turns = [
        (*prompt, *answer, 7, 8, 9) for prompt, answer in zip(PROMPTS[1:4], firsts, strict=True)
    ]
    assert bench.run(*turns) == [reference(model, turn) for turn in turns]
    assert bench.cached == [len(turn) - 4 for turn in turns] or all(bench.cached)
    bench.scheduler.close()


def test_answer_gets_a_token_between_the_chunks_of_a_burst(model) -> None:
    recorded = RecordedModel(model)
    backend = backend_over(recorded, ChunksOf48(48))
    backend.insert(9, Generation(prompt_of(20), 40, sampling=GREEDY), None)
    for _ in range(2):
        backend.step()
    for key in range(6):
        backend.insert(key, Generation(prompt_of(20, key + 2), 4, sampling=GREEDY), None)
    for _ in range(3):
        recorded.passes.clear()
        outcomes = backend.step()
        assert 9 in [outcome.key for outcome in outcomes if isinstance(outcome, Sampled)]
        assert list(recorded.passes)[1:] == [(40, 1)]


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_first_tokens_that_end_answers_of_a_burst_end_them(model, tokens: int) -> None:
    generations = [Generation(prompt, tokens, sampling=GREEDY) for prompt in PROMPTS]
    backend = backend_over(model, ChunkSizer(256))
    expected = [reference(model, prompt, tokens) for prompt in PROMPTS]
    assert answers(backend, generations, together=True) == expected
    # Nothing is left over.
    assert backend.step() == []


class BrokenMatcher:
    """A grammar that fails at the first token."""

    def masks(self, drafts: Sequence[int]) -> list[bytearray]:
        raise GrammarError("nothing is allowed")

    def advance(self, token_id: int) -> None: ...

    def forced(self) -> list[int]:
        return []

    def valid(self, tokens: Sequence[int]) -> int:
        return 0


def test_grammar_that_fails_in_a_shared_pass_fails_its_own_prompt_alone(model) -> None:
    caches = CacheMaker(model, is_ragged=True)
    backend = BatchBackend(model, caches, ChunkSizer(256), lambda _: BrokenMatcher())
    for key, prompt in enumerate(PROMPTS[:3]):
        grammar = Grammar("start: /a/") if key == 1 else None
        stops = frozenset({255}) if grammar else frozenset()
        backend.insert(key, Generation(prompt, 3, stops, sampling=GREEDY, grammar=grammar), None)
    outcomes = backend.step()
    assert len([one for one in outcomes if isinstance(one, PrefillProgress)]) == 3
    assert [one.key for one in outcomes if isinstance(one, SequenceFailed)] == [1]
    assert not any(isinstance(one, Sampled) for one in outcomes)
    backend.remove(1)
    drawn: dict[int, list[int]] = {0: [], 2: []}
    for _ in range(3):
        for step in backend.step():
            drawn[step.key] += step.tokens
    assert [drawn[key] for key in (0, 2)] == [reference(model, PROMPTS[key], 3) for key in (0, 2)]


def test_answers_of_a_burst_are_exact_for_every_family() -> None:
    """Also where caches cannot be packed: prompts follow each other there."""
    for family in set(tiny_architectures.FAMILIES) - set(RAGGED):
        model = tiny_architectures.build(family)
        bench = Bench(model)
        assert bench.run(*PROMPTS[:4]) == [reference(model, prompt) for prompt in PROMPTS[:4]]
        bench.scheduler.close()
