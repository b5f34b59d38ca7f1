"""Tests every model family with the scheduler: answers are always exact.

Batched, cached, branched, quantized, cancelled and restored from disk.
"""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.engine.disk.block_store import StoreLimits
from pensieve.engine.generation import Generation, Token
from pensieve.engine.model.cache_maker import CacheMaker, supports_batching, supports_ragged_kv
from pensieve.engine.planning.kv_precision import KVPrecision
from tests.mlx.scheduler_bench import GREEDY, Bench, FailingOnce, prompt_of, reference
from tests.support import tiny_architectures

FULLY_RAGGED = {"llama", "qwen3", "phi3"}
# Windows of 64 tokens, of which the 256 tokens before stay, too.
WITH_WINDOWS = {"gemma3_text", "gpt_oss"}
# mlx-lm cannot decode sequences of different lengths together for these.
ONE_AT_A_TIME = {"gemma2"}


@pytest.fixture(scope="module", params=list(tiny_architectures.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str):
    return tiny_architectures.build(family)


@pytest.fixture
def bench(model) -> Iterator[Bench]:
    bench = Bench(model)
    yield bench
    bench.scheduler.close()


def test_ragged_caches_are_used_where_the_model_supports_them(family: str, model) -> None:
    kinds = {type(cache).__name__ for cache in CacheMaker(model, supports_ragged_kv(model))()}
    if family in FULLY_RAGGED:
        assert kinds == {"SequenceKVCache"}
    if family in WITH_WINDOWS:
        assert kinds == {"SequenceKVCache", "WindowKVCache"}
    assert ("SequenceKVCache" in kinds) == (family != "gemma2")


def test_batching_support_is_detected(family: str, model) -> None:
    make_caches = CacheMaker(model, supports_ragged_kv(model))
    assert supports_batching(make_caches) == (family not in ONE_AT_A_TIME)


def test_batched_answers_equal_single_ones(model, bench: Bench) -> None:
    prompts = [prompt_of(length, seed) for seed, length in enumerate((3, 70, 150, 1, 200), 1)]
    assert bench.run(*prompts) == [reference(model, prompt) for prompt in prompts]


def test_next_turn_reuses_the_whole_previous_one(model, bench: Bench) -> None:
    first = prompt_of(310)
    (answer,) = bench.run(first)
    second = (*first, *answer, 9, 8, 7)
    assert bench.run(second) == [reference(model, second)]
    assert bench.cached == [len(first) + len(answer)]


def test_edited_turn_reuses_up_to_the_last_usable_boundary(family: str, model, bench) -> None:
    bench.run(prompt_of(310))
    edited = (*prompt_of(310)[:250], 9, 8, 7)
    assert bench.run(edited) == [reference(model, edited)]
    is_trimmable = family in {*FULLY_RAGGED, *WITH_WINDOWS, "gemma2"}
    assert bench.cached == [250 if is_trimmable else 200]


def test_edit_before_what_a_window_holds_reuses_up_to_a_boundary(family: str, model, bench) -> None:
    bench.run(prompt_of(600))
    edited = (*prompt_of(600)[:250], 9, 8, 7)
    assert bench.run(edited) == [reference(model, edited)]
    assert bench.cached == [250 if family in {*FULLY_RAGGED, "gemma2"} else 200]


def test_cached_sequence_stays_within_its_counted_bytes(model, bench: Bench) -> None:
    """Including its checkpoints: a boundary every 100 tokens."""
    (answer,) = bench.run(prompt_of(1900))
    tokens = 1900 + len(answer)
    assert bench.prefixes.nbytes <= bench.scheduler._budget.sequence(tokens)


def test_branch_leaves_its_trunk_unchanged(model, bench: Bench) -> None:
    trunk = prompt_of(900)
    bench.run(trunk)
    branch, onward = (*trunk[:400], 5, 6), (*trunk, 9)
    assert bench.run(branch, onward) == [reference(model, branch), reference(model, onward)]


def test_answer_over_a_restored_prefix_equals_a_fresh_one(model, tmp_path: Path) -> None:
    first = prompt_of(610)
    before = Bench(model, tmp_path)
    (answer,) = before.run(first)
    before.close()
    second = (*first, *answer, 9, 8, 7)
    after = Bench(model, tmp_path)
    assert after.run(second) == [reference(model, second)]
    assert after.cached == [len(first) + len(answer)]
    after.close()


def test_other_requests_get_a_token_with_each_restored_file(
    tmp_path: Path,
) -> None:
    model = tiny_architectures.build("llama")
    before = Bench(model, tmp_path)
    before.run(prompt_of(1500))
    before.close()
    after = Bench(model, tmp_path)
    short, long = prompt_of(20, 3), (*prompt_of(1500), 5)
    answers: dict[int, list[int]] = {1: [], 2: []}
    after.scheduler.submit(1, Generation(short, 40, sampling=GREEDY))
    at_once = [0]
    while not after.scheduler.is_idle:
        for key, event in after.scheduler.step():
            if isinstance(event, Token):
                answers[key].append(event.token_id)
        if len(answers[1]) == 3 and not answers[2]:
            after.scheduler.submit(2, Generation(long, 4, sampling=GREEDY))
        if answers[2]:
            at_once.append(len(answers[1]))
    assert answers == {1: reference(model, short, 40), 2: reference(model, long, 4)}
    # Five whole blocks and a tail.
    assert at_once[1] >= 3 + 6
    after.close()


def test_restored_prefix_is_in_memory_only_once(tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    prompt = prompt_of(4000)
    before = Bench(model, tmp_path)
    before.run(prompt)
    before.close()
    after = Bench(model, tmp_path)
    mx.reset_peak_memory()
    before_bytes = mx.get_active_memory()
    hit = after.restored(prompt)
    assert hit is not None
    assert hit.cached_tokens == 3999
    mx.eval([cache.state for cache in hit.state.caches])
    assert mx.get_peak_memory() - before_bytes < 1.25 * hit.state.nbytes
    after.prefix_cache.close()


def test_prompt_that_ends_with_a_stored_block_is_answered(
    family: str, model, tmp_path: Path
) -> None:
    before = Bench(model, tmp_path)
    before.run(prompt_of(600))
    before.close()
    after = Bench(model, tmp_path)
    assert after.run(prompt_of(512)) == [reference(model, prompt_of(512))]
    assert after.cached == [511 if family in {*FULLY_RAGGED, "gemma2"} else 0]
    after.close()


def test_edited_turn_over_a_restored_prefix_is_exact(family: str, model, tmp_path: Path) -> None:
    before = Bench(model, tmp_path)
    before.run(prompt_of(610))
    before.run((*prompt_of(610)[:300], 1, *prompt_of(300, 7)))
    before.close()
    edited = (*prompt_of(610)[:500], 9, 8, 7)
    after = Bench(model, tmp_path)
    assert after.run(edited) == [reference(model, edited)]
    # The second whole block is needed only in part; untrimmable layers need it whole.
    assert after.cached == [500 if family in {*FULLY_RAGGED, "gemma2"} else 0]
    after.close()


def test_prefixes_beyond_the_disk_cap_are_written_once(model, tmp_path: Path) -> None:
    bench = Bench(model, tmp_path, limits=StoreLimits(cap_bytes=600_000, daily_bytes=10**9))
    for seed in range(1, 5):
        bench.run(prompt_of(520, seed))
    bench.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 600_000


def test_damaged_file_never_causes_a_wrong_answer(model, tmp_path: Path) -> None:
    first = prompt_of(610)
    before = Bench(model, tmp_path)
    before.run(first)
    before.close()
    whole = {file: file.read_bytes() for file in sorted(tmp_path.iterdir())}
    assert len(whole) >= 3
    expected = reference(model, (*first, 3))
    for damaged, content in whole.items():
        for file in tmp_path.iterdir():
            file.unlink()
        for file, written in whole.items():
            file.write_bytes(written)
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        damaged.write_bytes(flipped)
        after = Bench(model, tmp_path)
        assert after.run((*first, 3)) == [expected]
        after.prefix_cache.close()


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_answers_are_the_same_alone_batched_and_restored(
    family: str, model, bits: int, tmp_path: Path
) -> None:
    """Applies to full attention: windows and state spaces are not quantized."""
    precision = KVPrecision(bits, group_size=32, is_rotated=bits == 4)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((300, 70, 555), 1)]
    alone = [Bench(model, precision=precision).run(prompt)[0] for prompt in prompts]
    before = Bench(model, tmp_path, precision)
    assert all(len(answer) == 8 for answer in alone)
    assert before.run(*prompts) == alone
    before.close()
    after = Bench(model, tmp_path, precision)
    second = (*prompts[2], *alone[2], 9, 8, 7)
    assert after.run(second) == Bench(model, precision=precision).run(second)
    assert after.cached == [len(second) - 3]
    full, quantized = (
        CacheMaker(model, supports_ragged_kv(model), each) for each in (KVPrecision(), precision)
    )
    assert (cache_bytes(model, quantized) < cache_bytes(model, full)) == (family != "gemma2")
    after.close()


def cache_bytes(model, make_caches: CacheMaker) -> int:
    caches = make_caches()
    model(mx.array([prompt_of(300)]), cache=[cache.merge([cache]) for cache in caches])
    return sum(cache.nbytes for cache in caches)


def test_cancelling_one_request_leaves_others_unchanged(model) -> None:
    prompts = [prompt_of(length, seed) for seed, length in enumerate((175, 1, 17, 130), 1)]
    expected = [reference(model, prompt) for prompt in prompts[1:]]
    for after_steps in (0, 1, 2, 9):
        bench = Bench(model)
        answers = bench.run(*prompts, cancel_after={0: after_steps})
        assert answers[1:] == expected, after_steps
        assert len(answers[0]) < 8
        bench.scheduler.close()


def test_failed_step_changes_no_answer(family: str, model) -> None:
    FailingOnce.steps_left = 5
    prompts = [prompt_of(length, seed) for seed, length in enumerate((1, 2, 17, 150), 1)]
    bench = Bench(model, backend=FailingOnce)
    answers = bench.run(*prompts)
    assert FailingOnce.steps_left < 0
    # A request that was alone in the step is at fault.
    assert bench.failed == ([0] if family in ONE_AT_A_TIME else [])
    for key, prompt in enumerate(prompts):
        assert key in bench.failed or answers[key] == reference(model, prompt)


def test_chunked_prefill_changes_no_answer(model, bench: Bench) -> None:
    """A prompt processed in chunks next to other requests, and at once."""
    long = prompt_of(333, 7)
    assert bench.run(prompt_of(20, 3), long, prompt_of(30, 5), max_tokens=30)[1] == reference(
        model, long, 30
    )
