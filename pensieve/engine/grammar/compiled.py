"""The one door to llguidance: a model's vocabulary, grammars compiled for it, and where an answer stands in one.

Grammars come from clients' schemas, so they may be hostile. llguidance bounds its own work (`LIMITS`) and does not raise, but
a long chain of references overflows the stack, which ends the process. So a grammar is tried out in a process of its own
first, within a second of processor time (`python -m pensieve.engine.grammar.compiled`), and compiled in this one only if that one
lived. No MLX, no threads.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.special_tokens import SpecialTokens, renamed, special_tokens_of
from pensieve.errors import EngineBusyError, GrammarError
from pensieve.isolation import python

MAX_GRAMMAR_BYTES = 1 << 20
# Twelve tools as Claude Code has them need a tenth of this; what needs more takes seconds or hundreds of megabytes.
LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_items_in_row=2_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
# Of the processor. The clock counts only where the machine is so busy that a second of the processor takes ten.
TRIAL_CPU_S = 1
TRIAL_S = 10.0
# What the batch may wait for, once in a while. Twelve tools compile in 5 ms (2026-11-22, two x86-64 cores).
RESET_S = 0.05
# A grammar's beginning is followed at most so far: `{"name": "` is forced.
_MAX_FORCED = 256

_ALLOWED = 1
_REFUSED = 3


class Vocabulary:
    """A model's tokens as llguidance knows them. Building it takes 1.2 s for 150 000 tokens (2026-11-30, two x86-64 cores)."""

    def __init__(self, tokenizer_json: str) -> None:
        """Raises ValueError for a tokenizer of an unknown kind."""
        try:
            fields = json.loads(tokenizer_json)
            special = special_tokens_of(fields)
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise ValueError(f"not a tokenizer.json: {error!r}") from error
        # Tokens that no text spells, by id.
        self.special_tokens = special.texts
        self.tokenizer = _unspelled(fields, special) or LLTokenizer(tokenizer_json)

    @classmethod
    def of(cls, tokenizer_file: Path) -> "Vocabulary":
        """Of a model's tokenizer.json. Raises OSError or ValueError."""
        return cls(tokenizer_file.read_text(encoding="utf-8"))


def _unspelled(fields: dict[str, Any], special: SpecialTokens) -> LLTokenizer | None:
    """The same tokenizer, which finds its special tokens in no text; None where they would be other tokens.

    llguidance tokenizes the bytes that a schema forces, and would take `<|im_end|>` in an enum for the token that ends the turn.
    """
    names = {text: f"<\ufdd0{token}\ufdd1>" for token, text in special.texts.items()}
    text = json.dumps(renamed(fields, names), ensure_ascii=False)
    found = LLTokenizer(text, eos_token=special.eos)
    is_same = all(
        token < found.vocab_size and found.is_special_token(token) for token in special.texts
    )
    return found if is_same else None


class CompiledGrammar:
    """A grammar over a vocabulary; every answer gets a matcher of its own from it."""

    def __init__(
        self, vocabulary: Vocabulary, grammar: Grammar, limits: LLParserLimits = LIMITS
    ) -> None:
        """Raises `GrammarError` where it does not compile, or lets no answer through."""
        self.vocabulary = vocabulary
        self.is_spent = False
        self._grammar = grammar
        self._limits = limits
        started_s = time.thread_time()
        self._pristine = _compiled(vocabulary.tokenizer, grammar, limits)
        self._took_s = time.thread_time() - started_s

    def matcher(self) -> LLMatcher:
        """A matcher at the grammar's beginning."""
        return self._pristine.deep_copy()

    def reset(self) -> None:
        """Compile it again: its copies share what the lexer has learnt, and the lexer's limit counts all of that.

        Raises `GrammarError` where the batch would have to wait for that; the next answer gets another then.
        """
        if self._took_s > RESET_S:
            self.is_spent = True
            raise GrammarError("The grammar has become too much to follow.")
        self._pristine = _compiled(self.vocabulary.tokenizer, self._grammar, self._limits)


class Matcher:
    """Where one answer stands in its grammar; owned by the answer's token mask."""

    def __init__(self, compiled: CompiledGrammar, generation: Generation) -> None:
        """Raises `GrammarError` where what is answered already does not obey."""
        self._compiled = compiled
        self._tokenizer = compiled.vocabulary.tokenizer
        size = self._tokenizer.vocab_size
        self._stop_tokens = frozenset(token for token in generation.stop_tokens if token < size)
        if not self._stop_tokens:
            raise GrammarError("None of the stop tokens is in the model's vocabulary.")
        self._matcher = compiled.matcher()
        first = len(generation.prompt_tokens) - generation.answered_tokens
        self._tokens: list[int] = []
        for token_id in generation.prompt_tokens[first:]:
            self.advance(token_id)

    def advance(self, token_id: int) -> None:
        """The answer has one more token; a stop token ends it. Raises `GrammarError` for one that is not allowed."""
        if token_id in self._stop_tokens:
            return
        self._tokens.append(token_id)
        if not self._matcher.consume_token(token_id):
            self._begin_anew()

    def allowed(self) -> bytearray:
        """A byte for each token, 0 where it must not be next. Raises `GrammarError` where that costs too much to tell."""
        allowed = bytearray(self._matcher.compute_logit_bias())
        if self._matcher.is_error():
            self._begin_anew()
            allowed = bytearray(self._matcher.compute_logit_bias())
            _check(self._matcher)
        self._set_stop_tokens(allowed)
        return allowed

    def _set_stop_tokens(self, allowed: bytearray) -> None:
        """A stop token may come where the grammar may end, and where the grammar names it; text that spells it does not."""
        may_end = self._matcher.is_accepting()
        if may_end:
            for token in self._tokenizer.eos_tokens:
                allowed[token] = 0
        for token in self._stop_tokens:
            is_named = allowed[token] and self._tokenizer.is_special_token(token)
            allowed[token] = _ALLOWED if may_end or is_named else 0

    def _begin_anew(self) -> None:
        """Other answers may have used up the lexer that this one shares."""
        self._compiled.reset()
        self._matcher = self._compiled.matcher()
        self._matcher.consume_tokens(self._tokens)
        _check(self._matcher)


def trial_compile(vocabulary: Vocabulary, grammar: Grammar) -> None:
    """Compile a grammar where nothing is lost by it. Raises `GrammarError`; `EngineBusyError` if the machine is too busy."""
    if len(grammar.lark) > MAX_GRAMMAR_BYTES:
        raise GrammarError(f"The grammar is longer than {MAX_GRAMMAR_BYTES} characters.")
    order = {
        "lark": grammar.lark,
        "size": vocabulary.tokenizer.vocab_size,
        "special": vocabulary.special_tokens,
    }
    try:
        trial = subprocess.run(  # noqa: S603 -- this interpreter, a fixed program
            python("-m", "pensieve.engine.grammar.compiled"),
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_S,
            check=False,
            # Python starts it by posix_spawn then: a fork of a process that holds Metal and gigabytes takes milliseconds. Our own
            # descriptors are not inherited anyway.
            close_fds=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineBusyError(f"No time to compile the grammar: {error}") from error
    except OSError as error:
        raise EngineBusyError(f"No grammar can be compiled now: {error}") from error
    if trial.returncode == _REFUSED:
        raise GrammarError(trial.stdout.decode())
    if trial.returncode < 0:
        raise GrammarError("The grammar takes too much to compile.")
    trial.check_returncode()


class _Bytes:
    """A vocabulary of the single bytes and the model's special tokens, by their ids, for llguidance's own protocol."""

    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, size: int, special: Mapping[int, str]) -> None:
        ordinary = (token for token in range(size) if token not in special)
        self.tokens = [b""] * size
        for byte, token in zip(range(256), ordinary, strict=False):
            self.tokens[token] = bytes([byte])
        for token, text in special.items():
            self.tokens[token] = text.encode()
        self.special_token_ids = list(special)
        self.eos_token_id = next(iter(special), size - 1)

    def __call__(self, text: str | bytes) -> list[int]:
        spelled = text.encode() if isinstance(text, str) else text
        return [self.tokens.index(bytes([byte])) for byte in spelled]


def _compiled(tokenizer: LLTokenizer, grammar: Grammar, limits: LLParserLimits) -> LLMatcher:
    lark = LLMatcher.grammar_from_lark(grammar.lark)
    matcher = LLMatcher(tokenizer, lark, log_level=0, limits=limits)
    _check(matcher)
    _check_beginning(matcher.deep_copy())
    return matcher


def _check_beginning(matcher: LLMatcher) -> None:
    """Follow it to where there is a choice: what costs too much shows there, not while tokens are forced."""
    for _ in range(_MAX_FORCED):
        allowed = matcher.compute_logit_bias()
        _check(matcher)
        if matcher.is_stopped() or allowed.count(0) < len(allowed) - 1:
            return
        forced = len(allowed) - len(allowed.lstrip(b"\0"))
        matcher.consume_token(forced)


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        first_line = matcher.get_error().partition("\n")[0]
        raise GrammarError(f"The grammar cannot be followed: {first_line}")


def main() -> int:
    """The trial: the order on standard input, what is wrong on standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_CPU_S, TRIAL_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    order = json.load(sys.stdin)
    special = {int(token): text for token, text in order["special"].items()}
    tokens: Any = _Bytes(order["size"], special)
    try:
        _compiled(LLTokenizer(tokens, slices=[]), Grammar(order["lark"]), LIMITS)
    except GrammarError as error:
        sys.stdout.write(error.message)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
