# pyright: basic
"""The only file that names mlx-lm's BatchGenerator: a `scheduler.Backend` over it.

mlx-lm's generate.py changes often; what is used of it here (insert, remove, next, prefill_step_size, StopSequences)
is held by tests/mlx. All of it happens on the thread that made the backend, as MLX's streams require.
"""

import importlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.generate import BatchGenerator, StopSequences  # noqa: TID253

from pensieve.engine.generation import FinishReason, Generation
from pensieve.engine.sampling import make_sampler
from pensieve.engine.scheduler import Progressed, Sampled

# A wired limit goes with kernel panics on macOS under load (engine.md, fact 10), and BatchGenerator sets one by itself.
# (By module name, since `mlx_lm.generate` as an attribute is the function of that name.)
vars(importlib.import_module("mlx_lm.generate"))["maybe_set_recommended_wired_limit"] = lambda: None  # pyright: ignore[reportIndexIssue]


class BatchBackend:
    """Owns one BatchGenerator and the two-way map between its ids and the scheduler's keys.

    prefill_chunk: prompt tokens processed in one step when nothing decodes; shared_prefill_chunk: when something does,
    since every decoding sequence waits that long for its next token.
    """

    def __init__(
        self, model: Any, *, max_batch: int, prefill_chunk: int, shared_prefill_chunk: int
    ) -> None:
        self._prefill_chunk = prefill_chunk
        self._shared_prefill_chunk = shared_prefill_chunk
        self._generator = BatchGenerator(
            model,
            completion_batch_size=max_batch,
            prefill_batch_size=1,
            prefill_step_size=prefill_chunk,
            stream=mx.default_stream(mx.default_device()),
        )
        self._key_by_uid: dict[int, int] = {}
        self._decoding: set[int] = set()

    def insert(self, key: int, generation: Generation) -> None:
        """Queue one sequence for prefill."""
        (uid,) = self._generator.insert(
            [list(generation.prompt_tokens)],
            max_tokens=[generation.max_tokens],
            samplers=[make_sampler(generation.sampling)],
            stop_sequences=[_stop_sequences(generation.stop_tokens)],
        )
        self._key_by_uid[uid] = key

    def remove(self, keys: Iterable[int]) -> None:
        """Free these sequences, whether queued, in prefill or decoding."""
        gone = set(keys)
        uids = [uid for uid, key in self._key_by_uid.items() if key in gone]
        self._generator.remove(uids)
        for uid in uids:
            self._forget(uid)

    def step(self) -> list[Sampled | Progressed]:
        """One token for every decoding sequence, then one chunk of the oldest prompt in prefill."""
        self._set_prefill_chunk()
        prompts, tokens = self._generator.next()
        outcomes: list[Sampled | Progressed] = [self._sampled(response) for response in tokens]
        outcomes += [self._progressed(response) for response in prompts]
        return outcomes

    def close(self) -> None:
        """Drop the batch and the buffers it leaves behind."""
        self._generator.close()
        del self._generator
        mx.clear_cache()

    def _set_prefill_chunk(self) -> None:
        chunk = self._shared_prefill_chunk if self._decoding else self._prefill_chunk
        self._generator.prefill_step_size = chunk
        # The prompt batch took its own copy when it was made.
        self._generator._prompt_batch.prefill_step_size = chunk  # noqa: SLF001

    def _sampled(self, response: Any) -> Sampled:
        key = self._key_by_uid[response.uid]
        if response.finish_reason is not None:
            self._forget(response.uid)
        return Sampled(key, int(response.token), _FINISH[response.finish_reason])

    def _progressed(self, response: Any) -> Progressed:
        if response.end_of_prompt:
            self._decoding.add(response.uid)
        return Progressed(self._key_by_uid[response.uid], response.progress[0])

    def _forget(self, uid: int) -> None:
        del self._key_by_uid[uid]
        self._decoding.discard(uid)


_FINISH: dict[str | None, FinishReason | None] = {
    None: None,
    "stop": "stop_token",
    "length": "length",
}


@lru_cache(maxsize=64)
def _stop_sequences(stop_tokens: frozenset[int]) -> Any:
    return StopSequences([[token] for token in sorted(stop_tokens)] or None)
