"""The one door to llguidance: a model's vocabulary, grammars compiled for it, and where an answer stands in one.

Grammars come from clients' schemas, so they may be hostile. llguidance bounds its own work (`LIMITS`) and never raises, but a
long chain of references overflows the stack, which ends the process. So a grammar is tried out in a process of its own
first, within a second of processor time and over a vocabulary of single bytes (`python -m pensieve.engine.grammar`), and
compiled in this one only if that one lived. No MLX, no threads.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from pensieve.engine.generation import Generation, Grammar
from pensieve.errors import EngineBusyError, GrammarError

MAX_GRAMMAR_BYTES = 1 << 20
# Claude Code's tools need a tenth of this; what needs more takes seconds, or hundreds of megabytes.
LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_items_in_row=2_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
# A process may use so much of a processor; the clock is looked at only for machines that are very busy.
TRIAL_CPU_S = 1
TRIAL_S = 10.0
TRIAL_BYTES = 2 << 30


class Vocabulary:
    """A model's tokens as llguidance knows them. Building one takes 0.2 s for 49 000 tokens, during which Python stands still."""

    def __init__(self, tokenizer_json: str) -> None:
        self.tokenizer = LLTokenizer(tokenizer_json)

    @classmethod
    def of(cls, tokenizer_file: Path) -> "Vocabulary":
        """Of a model's tokenizer.json. Raises OSError, or ValueError for a tokenizer of an unknown kind."""
        return cls(tokenizer_file.read_text(encoding="utf-8"))

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Tokens that no text spells, by id: a grammar has to name them."""
        tokenizer = self.tokenizer
        special = filter(tokenizer.is_special_token, range(tokenizer.vocab_size))
        return {token: tokenizer.decode_str([token]) for token in special}


class CompiledGrammar:
    """A grammar over a vocabulary. Owned by `Grammars`; every answer has a matcher of its own."""

    def __init__(self, vocabulary: Vocabulary, grammar: Grammar) -> None:
        """Raises `GrammarError` for one that does not compile, or that no text obeys."""
        self.vocabulary = vocabulary
        self._grammar = grammar
        self._pristine = _compiled(vocabulary.tokenizer, grammar.lark)

    def matcher(self) -> LLMatcher:
        """A matcher at the grammar's beginning."""
        return self._pristine.deep_copy()

    def renew(self) -> None:
        """Compile it again. Copies share what the lexer has learnt, and its limit counts all of that for ever."""
        self._pristine = _compiled(self.vocabulary.tokenizer, self._grammar.lark)


class Matcher:
    """Where one answer stands in its grammar; owned by its token mask."""

    def __init__(self, compiled: CompiledGrammar, generation: Generation) -> None:
        """Raises `GrammarError` where what is answered already does not obey."""
        self._compiled = compiled
        self._stop_tokens = generation.stop_tokens
        self._tokens: list[int] = []
        self._matcher = compiled.matcher()
        answered = generation.answered_tokens
        for token_id in generation.prompt_tokens[-answered:] if answered else ():
            self.advance(token_id)

    def advance(self, token_id: int) -> None:
        """The answer has one more token. Raises `GrammarError` for one that the grammar does not let through here."""
        is_special = token_id in self._compiled.vocabulary.special_tokens
        if token_id in self._stop_tokens and not is_special:
            return
        self._tokens.append(token_id)
        if token_id in self._stop_tokens:
            return
        if not self._matcher.consume_token(token_id):
            self._begin_anew()

    def allowed(self) -> bytearray:
        """A byte per token of the vocabulary, 0 for one that must not be next. Raises `GrammarError` where none can be."""
        found = bytearray(self._matcher.compute_logit_bias())
        if self._matcher.is_error():
            self._begin_anew()
            found = bytearray(self._matcher.compute_logit_bias())
        if self._matcher.is_error():
            raise GrammarError(_reason(self._matcher))
        self._let_stop(found)
        return found

    def _let_stop(self, found: bytearray) -> None:
        """Stop tokens are let through where the grammar may end, and one that is special where the grammar names it."""
        may_end = self._matcher.is_accepting()
        vocabulary = self._compiled.vocabulary
        ...
