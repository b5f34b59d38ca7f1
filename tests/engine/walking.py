"""Random answers: at every step any token that the grammar allows, all equally likely."""

import random
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.compiled import CompiledGrammar, Matcher, Vocabulary
from tests.support import tiny_models


@cache
def tokenizer() -> Tokenizer:
    """Byte-level, 437 tokens: a text has many tokenizations, and a character may be split."""
    return tiny_models.byte_level_tokenizer(is_qwen=True)


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary(tokenizer().to_str())


END = tokenizer().token_to_id("<|im_end|>")
CALL = tokenizer().token_to_id("<tool_call>")
PROMPT = (5, 6, 7)


def ids(text: str) -> list[int]:
    return tokenizer().encode(text, add_special_tokens=False).ids


def text_of(tokens: list[int]) -> str:
    return tokenizer().decode(tokens, skip_special_tokens=False)


def compiled(lark: str) -> CompiledGrammar:
    return CompiledGrammar(vocabulary(), Grammar(lark))


def generation(lark: str, answered: list[int] | None = None, **more) -> Generation:
    answered = answered or []
    return Generation(
        prompt_tokens=(*PROMPT, *answered),
        max_tokens=1000,
        stop_tokens=more.pop("stop_tokens", frozenset({END})),
        grammar=Grammar(lark),
        answered_tokens=len(answered),
        **more,
    )


def matcher(lark: str, answered: list[int] | None = None, **more) -> Matcher:
    return Matcher(compiled(lark), generation(lark, answered, **more))


def allowed(matcher: Matcher) -> set[int]:
    return {token for token, is_allowed in enumerate(matcher.allowed()) if is_allowed}


@dataclass(frozen=True)
class Walk:
    tokens: list[int]
    has_ended: bool

    @property
    def text(self) -> str:
        return text_of(self.tokens)


def walk(matcher: Matcher, seed: int, max_tokens: int = 600) -> Walk:
    """Sample until a stop token, or `max_tokens`."""
    chance = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < max_tokens:
        token = chance.choice(sorted(allowed(matcher)))
        if token == END:
            return Walk(tokens, has_ended=True)
        matcher.advance(token)
        tokens.append(token)
    return Walk(tokens, has_ended=False)
