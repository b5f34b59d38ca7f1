"""Compiles the grammars of one worker in two threads and caches the latest ones.

The worker's main thread submits and gets a `Future`. The threads hold no MLX and, while compiling,
no interpreter lock: the batch keeps stepping. They import llguidance on first use: if a machine
cannot load it (macOS 27 refuses some builds), grammars fail and everything else works.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar import llguidance_import
from pensieve.errors import EngineBusyError, GrammarError

if TYPE_CHECKING:
    from pensieve.engine.grammar.compiled import CompiledGrammar, Matcher, Vocabulary

# More than fit in queue and batch; one takes about a megabyte.
MAX_COMPILED = 128
# Two, so that a slow grammar does not block the others.
THREADS = 2
# Far more than the trial process has: a grammar that compiles there compiles here.
STACK_BYTES = 64 << 20


class GrammarCompiler:
    """Owned by the worker's main thread. Builds the vocabulary in the background at once."""

    def __init__(self, load: "Callable[[], Vocabulary]") -> None:
        self._threads = _start_threads()
        self._vocabulary = self._threads.submit(load)
        self._futures: dict[Grammar, Future[CompiledGrammar]] = {}
        self._lock = threading.Lock()
        self._spent_s = 0.0

    @property
    def spent_s(self) -> float:
        """Return the seconds that compilations took so far, failed ones included."""
        return self._spent_s

    @classmethod
    def of(cls, tokenizer_file: Path) -> "GrammarCompiler":
        return cls(lambda: _load(tokenizer_file))

    def prepare(self, grammar: Grammar) -> "Future[CompiledGrammar]":
        """Return the cached or new compilation; its future may raise an `EngineError`."""
        compiled = self._futures.pop(grammar, None)
        if compiled is None or _should_retry(compiled):
            compiled = self._threads.submit(self._compile, grammar)
        self._futures[grammar] = compiled
        if len(self._futures) > MAX_COMPILED:
            del self._futures[next(iter(self._futures))]
        return compiled

    def matcher(self, generation: Generation) -> "Matcher":
        """Return a matcher for a new sequence; blocks until compiled. Raises `EngineError`."""
        assert generation.grammar is not None
        compiled = self.prepare(generation.grammar).result()
        from pensieve.engine.grammar.compiled import Matcher

        return Matcher(compiled, generation)

    def close(self) -> None:
        """End the threads after their current grammar."""
        self._threads.shutdown(cancel_futures=True)

    def _compile(self, grammar: Grammar) -> "CompiledGrammar":
        try:
            vocabulary = self._vocabulary.result()
        except GrammarError:
            raise
        except Exception as error:
            raise GrammarError(
                f"This model's tokenizer does not support grammars: {error}"
            ) from error
        from pensieve.engine.grammar.compiled import CompiledGrammar, trial_compile

        began_s = time.monotonic()
        try:
            trial_compile(vocabulary, grammar)
            return CompiledGrammar(vocabulary, grammar)
        finally:
            self._note_spent(time.monotonic() - began_s)

    def _note_spent(self, seconds: float) -> None:
        with self._lock:
            self._spent_s += seconds


def _load(tokenizer_file: Path) -> "Vocabulary":
    llguidance_import.import_library()
    from pensieve.engine.grammar.compiled import Vocabulary

    return Vocabulary.of(tokenizer_file)


def _should_retry(compiled: "Future[CompiledGrammar]") -> bool:
    if not compiled.done() or compiled.cancelled():
        return compiled.cancelled()
    error = compiled.exception()
    return compiled.result().is_spent if error is None else isinstance(error, EngineBusyError)


def _start_threads() -> ThreadPoolExecutor:
    """Start all threads now: the stack size is a global setting, read when a thread starts."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")
    started = threading.Barrier(THREADS)
    before = threading.stack_size(STACK_BYTES)
    try:
        for _ in range(THREADS):
            pool.submit(started.wait)
    finally:
        threading.stack_size(before)
    return pool
