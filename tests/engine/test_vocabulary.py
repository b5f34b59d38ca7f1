"""Control tokens that a schema spells: what a grammar forces is written by ordinary tokens."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pensieve.engine.generation import Grammar
from pensieve.engine.grammar import CompiledGrammar, Vocabulary
from tests.engine.grammar_cases import GUIDANCE

CONTROLS = ("<|im_end|>", "<tool_call>", "[ARGS]")
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(*, are_in_model: bool) -> Tokenizer:
    """Of single bytes, its control tokens among the model's own or added to them."""
    own = [*LETTERS, *(CONTROLS if are_in_model else ())]
    vocabulary = {text: at for at, text in enumerate(own)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS])
    return tokenizer


def unigram() -> Tokenizer:
    bytes_ = [(f"<0x{byte:02X}>", -5.0) for byte in range(256)]
    scored = [("<unk>", 0.0), *bytes_, *((text, -1.0) for text in CONTROLS), ("a", -2.0)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS])
    return tokenizer


TOKENIZERS = {
    "added": byte_level(are_in_model=False),
    "in the model": byte_level(are_in_model=True),
    "unigram": unigram(),
}
any_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def followed(matcher: LLMatcher) -> list[int]:
    """The tokens where there is no choice, up to the end."""
    tokens: list[int] = []
    while not matcher.is_stopped():
        allowed = [token for token, bias in enumerate(matcher.compute_logit_bias()) if bias]
        if matcher.is_accepting() or not allowed:
            break
        tokens.append(allowed[0])
        assert matcher.consume_token(allowed[0])
    return tokens


def lark_of(schema: dict[str, Any]) -> Grammar:
    return Grammar(f"start: %json {json.dumps({**schema, 'x-guidance': GUIDANCE})}\n")


@any_tokenizer
@pytest.mark.parametrize("text", ["a<|im_end|>b", "<tool_call>", "[ARGS]x", "<|im_end|>"])
def test_text_of_a_control_token_in_a_schema_is_never_that_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    controls = {tokenizer.token_to_id(control) for control in CONTROLS}
    key = {
        "type": "object",
        "properties": {text: {"const": True}},
        "required": [text],
        "additionalProperties": False,
    }
    for schema in ({"enum": [text]}, {"const": text}, key):
        tokens = followed(
            CompiledGrammar(Vocabulary(tokenizer.to_str()), lark_of(schema)).matcher()
        )
        assert not controls & set(tokens)
        written = json.loads(tokenizer.decode(tokens, skip_special_tokens=False))
        assert written == (text if schema is not key else {text: True})


@any_tokenizer
def test_a_control_token_that_a_grammar_names_is_that_token(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    first, last = (tokenizer.token_to_id(text) for text in CONTROLS[1:])
    grammar = Grammar(f'start: <[{first}]> "a" <[{last}]>\n')
    tokens = followed(CompiledGrammar(Vocabulary(tokenizer.to_str()), grammar).matcher())
    assert (tokens[0], tokens[-1]) == (first, last)
    assert tokenizer.decode(tokens[1:-1]) == "a"


@any_tokenizer
def test_no_free_text_holds_a_control_token(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    vocabulary = Vocabulary(tokenizer.to_str())
    allowed = (
        CompiledGrammar(vocabulary, Grammar("start: /(.|\\n)*/\n")).matcher().compute_logit_bias()
    )
    assert not any(allowed[tokenizer.token_to_id(text)] for text in CONTROLS if text[0] == "<")
    assert set(vocabulary.special_tokens.values()) >= set(CONTROLS)
