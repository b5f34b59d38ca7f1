"""Tests that text of control tokens in a schema is spelled by ordinary tokens."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pensieve.engine.generation import Grammar
from pensieve.engine.grammar.compiled import CompiledGrammar, Vocabulary
from pensieve.engine.grammar.special_tokens import special_tokens_of
from tests.engine.grammar_cases import GUIDANCE

CONTROLS = ("<|im_end|>", "<tool_call>", "[ARGS]")
BYTE_CHARS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(*, are_in_model: bool) -> Tokenizer:
    """A tokenizer of single bytes; its control tokens are in the model's vocabulary or added to
    it.
    """
    own = [*BYTE_CHARS, *(CONTROLS if are_in_model else ())]
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


def with_unknown() -> Tokenizer:
    own = ["[UNK]", *BYTE_CHARS, *CONTROLS]
    tokenizer = Tokenizer(
        models.BPE({text: at for at, text in enumerate(own)}, [], unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS])
    return tokenizer


def with_odd_bytes() -> Tokenizer:
    """Some vocabularies have merged tokens that begin with a byte that never occurs in UTF-8."""
    merges = [("\u00ff", "T"), ("\u00ff", "\u00ff"), ("e", "n")]
    own = [*BYTE_CHARS, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({text: at for at, text in enumerate(own)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROLS])
    return tokenizer


TOKENIZERS = {
    "with an unknown token": with_unknown(),
    "with odd bytes": with_odd_bytes(),
    "added": byte_level(are_in_model=False),
    "in the model": byte_level(are_in_model=True),
    "unigram": unigram(),
}
any_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def forced_tokens(matcher: LLMatcher) -> list[int]:
    """Return the tokens up to the first choice or the end."""
    tokens: list[int] = []
    while not matcher.is_stopped():
        allowed = [token for token, bias in enumerate(matcher.compute_logit_bias()) if bias]
        if matcher.is_accepting() or not allowed:
            break
        tokens.append(allowed[0])
        assert matcher.consume_token(allowed[0])
    return tokens


def grammar_of(schema: dict[str, Any]) -> Grammar:
    return Grammar(f"start: %json {json.dumps({**schema, 'x-guidance': GUIDANCE})}\n")


@any_tokenizer
@pytest.mark.parametrize("text", ["a<|im_end|>b", "<tool_call>", "[ARGS]x", "<|im_end|>"])
def test_control_token_text_in_a_schema_is_never_that_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    controls = {tokenizer.token_to_id(control) for control in CONTROLS}
    key = {
        "type": "object",
        "properties": {text: {"const": True}},
        "required": [text],
        "additionalProperties": False,
    }
    for schema in ({"enum": [text]}, {"const": text}, key):
        tokens = forced_tokens(
            CompiledGrammar(Vocabulary(tokenizer.to_str()), grammar_of(schema)).matcher()
        )
        assert not controls & set(tokens)
        written = json.loads(tokenizer.decode(tokens, skip_special_tokens=False))
        assert written == (text if schema is not key else {text: True})


@any_tokenizer
def test_control_token_named_by_a_grammar_is_that_token(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    first, last = (tokenizer.token_to_id(text) for text in CONTROLS[1:])
    grammar = Grammar(f'start: <[{first}]> "a" <[{last}]>\n')
    tokens = forced_tokens(CompiledGrammar(Vocabulary(tokenizer.to_str()), grammar).matcher())
    assert (tokens[0], tokens[-1]) == (first, last)
    assert tokenizer.decode(tokens[1:-1]) == "a"


@any_tokenizer
def test_free_text_never_contains_a_control_token(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    vocabulary = Vocabulary(tokenizer.to_str())
    allowed = (
        CompiledGrammar(vocabulary, Grammar("start: /(.|\\n)*/\n")).matcher().compute_logit_bias()
    )
    assert not any(allowed[tokenizer.token_to_id(text)] for text in CONTROLS if text[0] == "<")
    assert set(vocabulary.special_tokens.values()) >= set(CONTROLS)


@any_tokenizer
def test_special_tokens_equal_those_of_the_whole_tokenizer(
    name: str,
) -> None:
    text = TOKENIZERS[name].to_str()
    whole = LLTokenizer(text)
    found = special_tokens_of(json.loads(text))
    added = TOKENIZERS[name].get_added_tokens_decoder()
    assert found.texts == {
        token: one.content for token, one in added.items() if whole.is_special_token(token)
    }
    ends = set(whole.eos_tokens) & set(found.texts)
    assert found.eos == next(iter(ends), None)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", '{"model": []}', '{"model": {"vocab": 5}}', "[" * 99_999]
)
def test_invalid_tokenizer_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is the library's
        Vocabulary(text)
