"""A model's vocabulary, grammars compiled for it, and each answer's position in its grammar.

Used by compiler.py; only this module and special_tokens.py import llguidance. No MLX, no threads.

Grammars come from clients' schemas, so they may be hostile. llguidance limits its own work
(`LIMITS`) and does not raise, but a long chain of references overflows the stack, which ends the
process. So a grammar is first compiled by a child process (this module run as a program), limited
to a second of CPU time, and in this process only if the child survived.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.special_tokens import SpecialTokens, renamed, special_tokens_of
from pensieve.errors import EngineBusyError, GrammarError
from pensieve.isolation import python

MAX_GRAMMAR_BYTES = 1 << 20
# Twelve tools of Claude Code need a tenth of this; grammars that need more take seconds or hundreds
# of megabytes.
LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_items_in_row=2_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
# CPU seconds. The wall clock matters only on a machine so busy that a CPU second takes ten.
TRIAL_CPU_S = 1
TRIAL_TIMEOUT_S = 10.0
# How long the batch may wait for a reset. Twelve tools compile in 5 ms (2026-11-22, two x86-64
# cores).
RESET_S = 0.05
# A grammar's forced beginning, such as `{"name": "`, is followed for at most this many tokens.
_MAX_FORCED = 256

ResultT = TypeVar("ResultT")

# llguidance's names for a grammar that ends before it matched anything.
_MATCHES_NOTHING = {"NoExtension", "NoExtensionBias"}
_ALLOWED = 1
_REFUSED = 3


class Vocabulary:
    """A model's tokens for llguidance.

    Building it takes 1.2 s for 150 000 tokens (2026-11-30, two x86-64 cores).
    """

    def __init__(self, tokenizer_json: str) -> None:
        """Raises ValueError for a tokenizer of an unknown kind."""
        try:
            fields = json.loads(tokenizer_json)
            special = special_tokens_of(fields)
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise ValueError(f"not a tokenizer.json: {error!r}") from error
        # The texts of tokens that text cannot spell, by id.
        self.special_tokens = special.texts
        self.tokenizer = _unspelled(fields, special) or LLTokenizer(tokenizer_json)

    @classmethod
    def of(cls, tokenizer_file: Path) -> "Vocabulary":
        """Read a model's tokenizer.json. Raises OSError or ValueError."""
        return cls(tokenizer_file.read_text(encoding="utf-8"))


def _unspelled(fields: dict[str, Any], special: SpecialTokens) -> LLTokenizer | None:
    """Return the same tokenizer, but finding no special tokens in text; None if its tokens differ.

    llguidance tokenizes the bytes that a schema forces, and would take `<|im_end|>` in an enum for
    the token that ends the turn.
    """
    names = {text: f"<\ufdd0{token}\ufdd1>" for token, text in special.texts.items()}
    text = json.dumps(renamed(fields, names), ensure_ascii=False)
    found = LLTokenizer(text, eos_token=special.eos)
    is_same = all(
        token < found.vocab_size and found.is_special_token(token) for token in special.texts
    )
    return found if is_same else None


class CompiledGrammar:
    """A grammar over a vocabulary; makes one matcher per answer."""

    def __init__(
        self, vocabulary: Vocabulary, grammar: Grammar, limits: LLParserLimits = LIMITS
    ) -> None:
        """Raises `GrammarError` if it does not compile, or allows no answer."""
        self.vocabulary = vocabulary
        self.is_spent = False
        self._grammar = grammar
        self._limits = limits
        started_s = time.thread_time()
        self._pristine = _compiled(vocabulary.tokenizer, grammar, limits)
        self._compile_s = time.thread_time() - started_s

    def matcher(self) -> LLMatcher:
        """Return a matcher at the grammar's beginning."""
        return self._pristine.deep_copy()

    def reset(self) -> None:
        """Compile again: all copies share the lexer's state, and its limit counts all of it.

        Raises `GrammarError` if the batch would wait too long; the next answer gets a new grammar.
        """
        if self._compile_s > RESET_S:
            self.is_spent = True
            raise GrammarError("The grammar has become too large to match.")
        self._pristine = _compiled(self.vocabulary.tokenizer, self._grammar, self._limits)


class Matcher:
    """One answer's position in its grammar; owned by the answer's token mask."""

    def __init__(self, compiled: CompiledGrammar, generation: Generation) -> None:
        """Raises `GrammarError` if the existing part of the answer does not match."""
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
        """Append a token; stop tokens are ignored. Raises `GrammarError` if it is not allowed."""
        if token_id in self._stop_tokens:
            return
        self._tokens.append(token_id)
        if not self._matcher.consume_token(token_id):
            self._restart()

    def allowed(self) -> bytearray:
        """Return a byte per token, 0 if it must not be next. Raises `GrammarError` if too
        costly.
        """
        allowed = bytearray(self._matcher.compute_logit_bias())
        if self._matcher.is_error():
            self._restart()
            allowed = bytearray(self._matcher.compute_logit_bias())
            _check(self._matcher)
        self._set_stop_tokens(allowed)
        return allowed

    def masks(self, drafts: Sequence[int]) -> list[bytearray]:
        """Return `allowed` now and after each draft; fewer if a draft exceeds the limits."""
        masks = [self.allowed()]
        for draft in drafts:
            if not self._matcher.consume_token(draft) or self._matcher.is_error():
                break
            after = bytearray(self._matcher.compute_logit_bias())
            if self._matcher.is_error():
                break
            self._set_stop_tokens(after)
            masks.append(after)
        if self._matcher.is_error() or not self._matcher.rollback(len(masks) - 1):
            self._restart()
        return masks

    def forced(self) -> list[int]:
        """Return the tokens that must be next; none where that is too costly."""
        return self._before_stop(self._checked(self._matcher.compute_ff_tokens(), []))

    def valid(self, tokens: Sequence[int]) -> int:
        """Return how many of the tokens may be next and are no stop token."""
        return self._checked(self._matcher.validate_tokens(self._before_stop(tokens)), 0)

    def _before_stop(self, tokens: Sequence[int]) -> list[int]:
        size = self._tokenizer.vocab_size
        ends = (
            at for at, token in enumerate(tokens) if token in self._stop_tokens or token >= size
        )
        return list(tokens[: next(ends, len(tokens))])

    def _checked(self, result: ResultT, default: ResultT) -> ResultT:
        """Return `default` if finding the result exceeded the limits."""
        if not self._matcher.is_error():
            return result
        self._restart()
        return default

    def _set_stop_tokens(self, allowed: bytearray) -> None:
        """Allow stop tokens where the grammar may end or names them.

        A stop token that the grammar only spells as text stays forbidden.
        """
        may_end = self._matcher.is_accepting()
        if may_end:
            for token in self._tokenizer.eos_tokens:
                allowed[token] = 0
        for token in self._stop_tokens:
            is_named = allowed[token] and self._tokenizer.is_special_token(token)
            allowed[token] = _ALLOWED if may_end or is_named else 0

    def _restart(self) -> None:
        """Compile and match again: other answers may have used up the shared lexer."""
        self._compiled.reset()
        self._matcher = self._compiled.matcher()
        self._matcher.consume_tokens(self._tokens)
        _check(self._matcher)


def trial_compile(vocabulary: Vocabulary, grammar: Grammar) -> None:
    """Compile a grammar in a child process.

    Raises `GrammarError`, or `EngineBusyError` if the machine is too busy.
    """
    if len(grammar.lark) > MAX_GRAMMAR_BYTES:
        raise GrammarError(f"The grammar is longer than {MAX_GRAMMAR_BYTES} characters.")
    request = {
        "lark": grammar.lark,
        "size": vocabulary.tokenizer.vocab_size,
        "special": vocabulary.special_tokens,
    }
    try:
        trial = subprocess.run(  # noqa: S603 -- this interpreter, a fixed program
            python("-m", "pensieve.engine.grammar.compiled"),
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
            # With this, Python uses posix_spawn: a fork of a process with Metal and gigabytes takes
            # milliseconds. Our own descriptors are not inherited in any case.
            close_fds=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineBusyError(f"Compiling the grammar timed out: {error}") from error
    except OSError as error:
        raise EngineBusyError(f"The grammar compiler did not start: {error}") from error
    if trial.returncode == _REFUSED:
        raise GrammarError(trial.stdout.decode())
    if trial.returncode < 0:
        raise GrammarError("The grammar takes too many resources to compile.")
    trial.check_returncode()


class _Bytes:
    """A vocabulary of single bytes and the model's special tokens under their ids.

    Implements llguidance's tokenizer protocol for the trial.
    """

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
    """Follow the grammar to its first choice: costly grammars fail here, not in the batch."""
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
        if first_line in _MATCHES_NOTHING:
            raise GrammarError("The grammar matches no text.")
        raise GrammarError(f"The grammar cannot be followed: {first_line}")


def main() -> int:
    """Run the trial: the request on standard input, the error on standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_CPU_S, TRIAL_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin)
    special = {int(token): text for token, text in request["special"].items()}
    tokens: Any = _Bytes(request["size"], special)
    try:
        _compiled(LLTokenizer(tokens, slices=[]), Grammar(request["lark"]), LIMITS)
    except GrammarError as error:
        sys.stdout.write(error.message)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
