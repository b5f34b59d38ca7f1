"""The grammars of one worker: compiled by threads of their own, the last ones kept.

Crossings: the worker's main thread asks, two threads compile, a `Future` carries the result back. The threads hold no MLX
and, while they compile, not the interpreter either: the batch steps on meanwhile. llguidance is loaded by them, not before:
where a machine does not load it (macOS 27 refuses some builds), a grammar fails and everything else works.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar import llguidance_import
from pensieve.errors import EngineBusyError, GrammarError

if TYPE_CHECKING:
    from pensieve.engine.grammar.compiled import CompiledGrammar, Matcher, Vocabulary

# More than can be in the line and the batch; one takes about a megabyte.
MAX_COMPILED = 128
# Two, so that one that takes its whole time keeps nobody else waiting.
THREADS = 2
# Far more than the process has that a grammar is tried out in: what lived there lives here.
STACK_BYTES = 64 << 20


class GrammarCompiler:
    """Owned by the worker's main thread. The vocabulary is built in the background, from the start."""

    def __init__(self, load: "Callable[[], Vocabulary]") -> None:
        self._threads = _threads_with_stack()
        self._vocabulary = self._threads.submit(load)
        self._kept: dict[Grammar, Future[CompiledGrammar]] = {}

    @classmethod
    def of(cls, tokenizer_file: Path) -> "GrammarCompiler":
        """For the model with this tokenizer.json."""
        return cls(lambda: _load(tokenizer_file))

    def prepare(self, grammar: Grammar) -> "Future[CompiledGrammar]":
        """Compiled, or being compiled. The future ends in an `EngineError` where that is not to be."""
        compiled = self._kept.pop(grammar, None)
        if compiled is None or _may_do_better(compiled):
            compiled = self._threads.submit(self._compile, grammar)
        self._kept[grammar] = compiled
        if len(self._kept) > MAX_COMPILED:
            del self._kept[next(iter(self._kept))]
        return compiled

    def matcher(self, generation: Generation) -> "Matcher":
        """For a new sequence of a generation with a grammar. Raises `EngineError`."""
        assert generation.grammar is not None
        compiled = self.prepare(generation.grammar).result()
        from pensieve.engine.grammar.compiled import Matcher

        return Matcher(compiled, generation)

    def close(self) -> None:
        """End the threads, after what they are at."""
        self._threads.shutdown(cancel_futures=True)

    def _compile(self, grammar: Grammar) -> "CompiledGrammar":
        try:
            vocabulary = self._vocabulary.result()
        except GrammarError:
            raise
        except Exception as error:
            raise GrammarError(f"This model's tokenizer takes no grammars: {error}") from error
        from pensieve.engine.grammar.compiled import CompiledGrammar, trial_compile

        trial_compile(vocabulary, grammar)
        return CompiledGrammar(vocabulary, grammar)


def _load(tokenizer_file: Path) -> "Vocabulary":
    llguidance_import.import_library()
    from pensieve.engine.grammar.compiled import Vocabulary

    return Vocabulary.of(tokenizer_file)


def _may_do_better(compiled: "Future[CompiledGrammar]") -> bool:
    if not compiled.done() or compiled.cancelled():
        return compiled.cancelled()
    error = compiled.exception()
    return compiled.result().is_spent if error is None else isinstance(error, EngineBusyError)


def _threads_with_stack() -> ThreadPoolExecutor:
    """The stack's size is told before a thread is made, for all threads; so both are made here and now."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")
    started = threading.Barrier(THREADS)
    before = threading.stack_size(STACK_BYTES)
    try:
        for _ in range(THREADS):
            pool.submit(started.wait)
    finally:
        threading.stack_size(before)
    return pool
