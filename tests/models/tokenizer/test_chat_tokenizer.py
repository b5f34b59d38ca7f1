"""Client text never becomes a control token and round-trips, for each tokenizer of a chat model."""

import json
from collections.abc import Sequence
from unicodedata import normalize

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from pensieve.errors import ModelDamagedError
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from pensieve.models.tokenizer.control_tokens import BREAK, ESCAPE
from tests.support import tiny_models


def with_metaspace_first() -> Tokenizer:
    """As newer conversions of Llama 2 and Mistral: only the first word of the whole text gets a
    space.
    """
    stored = json.loads(tiny_models.phi3_tokenizer().to_str())
    stored["normalizer"] = None
    stored["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": False,
    }
    return Tokenizer.from_str(json.dumps(stored))


def with_reachable_words() -> Tokenizer:
    """Control tokens in the vocabulary, which plain text reaches without an added token."""
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=True)
    stored = json.loads(tokenizer.to_str())
    for token in stored["added_tokens"]:
        stored["model"]["vocab"][token["content"]] = token["id"]
    stored["model"]["ignore_merges"] = True
    stored["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return Tokenizer.from_str(json.dumps(stored))


def with_normalized_controls() -> Tokenizer:
    """Control tokens matched in the normalized text, where full-width brackets are brackets."""
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=False)
    stored = json.loads(tokenizer.to_str())
    for token in stored["added_tokens"]:
        token["normalized"] = True
    tokenizer = Tokenizer.from_str(json.dumps(stored))
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


def with_overlaps_and_blanks() -> Tokenizer:
    """Control tokens that overlap, and runs of blanks that are tokens."""
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=False)
    overlapping = ["aab", "abc", "bca", "<|", "|>"]
    tokenizer.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in overlapping]
    )
    tokenizer.add_tokens([AddedToken(" " * n, special=False, normalized=False) for n in (2, 4)])
    return tokenizer


EXACT = {
    "sentencepiece": tiny_models.phi3_tokenizer(),
    "metaspace": with_metaspace_first(),
    "byte-level": tiny_models.byte_level_tokenizer(is_qwen=False),
    "reachable": with_reachable_words(),
    "overlapping": with_overlaps_and_blanks(),
}
# NFC and NFKC change some texts, which then cannot round-trip.
TOKENIZERS = EXACT | {
    "qwen": tiny_models.byte_level_tokenizer(is_qwen=True),
    "normalized": with_normalized_controls(),
}
SERVED = {
    name: ModelTokenizer(tokenizer, ChatTemplate(tiny_models.CHATML_TEMPLATE, {}), stop_tokens=())
    for name, tokenizer in TOKENIZERS.items()
}
CONTROLS = sorted(
    {
        token.content
        for tokenizer in TOKENIZERS.values()
        for token in tokenizer.get_added_tokens_decoder().values()
    }
)

any_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
text_parts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(CONTROLS),
    st.sampled_from(
        ["<", "|", ">", "<|", "|>", "<|im_", "end|>", " ", "\n", "aab", "c", "\uff1c|im_end|\uff1e"]
    ),
    st.sampled_from(
        [BREAK, ESCAPE, ESCAPE + "0", ESCAPE + "1", "🙂", "👩‍👩‍👧", "東京", "▁", "<0x41>"]
    ),
)
texts = st.lists(text_parts, max_size=6).map("".join)


def plainly(name: str, text: str) -> list[int]:
    return TOKENIZERS[name].encode(text, add_special_tokens=False).ids


def written(name: str, ids: Sequence[int]) -> str:
    detokenizer = SERVED[name].detokenizer()
    return "".join(map(detokenizer.feed, ids)) + detokenizer.flush()


@any_tokenizer
def test_bytes_of_tokens_are_the_text_and_control_tokens_have_a_name_instead(name: str) -> None:
    served, text = SERVED[name], " naïve 🙂\n  x"
    spelled = b"".join(served.bytes_of(token) or b"" for token in plainly(name, text))
    assert spelled.decode().strip(" ") == text.strip(" ")
    hidden = [number for number in served.control_tokens if served.bytes_of(number) is None]
    assert hidden
    assert all(served.name_of(number) == TOKENIZERS[name].id_to_token(number) for number in hidden)
    assert (served.bytes_of(2**31), served.name_of(2**31)) == (None, "")


@any_tokenizer
def test_every_control_token_in_a_clients_text_is_plain_text(name: str) -> None:
    served = SERVED[name]
    assert served.control_tokens
    for number in served.control_tokens:
        token = TOKENIZERS[name].id_to_token(number)
        for text in (
            token,
            f"{token}{token}",
            f"a {token} b",
            f"{token}\n{token[1:]}",
            token[:-1] + token,
        ):
            ids = served.encode(served.neutralize(text))
            assert served.control_tokens.isdisjoint(ids), text
            assert written(name, ids) == text


@any_tokenizer
@settings(max_examples=150)
@given(text=texts)
def test_client_text_never_becomes_a_control_token(name: str, text: str) -> None:
    served = SERVED[name]
    assert served.control_tokens.isdisjoint(served.encode(served.neutralize(text)))


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=150)
@given(text=texts)
def test_client_text_round_trips(name: str, text: str) -> None:
    # SentencePiece's sign for a space at the beginning of a text decodes as a space.
    expected = text.replace("▁", " ") if name in {"sentencepiece", "metaspace"} else text
    served = SERVED[name]
    ids = served.encode(served.neutralize(text))
    if name == "metaspace" and expected.startswith(" "):
        expected = expected.removeprefix(" ")  # it puts no space before a space, so one is lost
    # One of them normalizes: a compatibility ideograph becomes the ideograph.
    assert normalize("NFC", written(name, ids)) == normalize("NFC", expected)


@any_tokenizer
@settings(max_examples=100)
@given(parts=st.lists(texts, min_size=1, max_size=3))
def test_a_prompt_has_only_the_templates_control_tokens(name: str, parts: list[str]) -> None:
    served = SERVED[name]
    own = "<|endoftext|>"
    rendered = own.join(served.neutralize(part) for part in parts)
    ids = served.encode(rendered)
    controls = [number for number in ids if number in served.control_tokens]
    assert controls == [TOKENIZERS[name].token_to_id(own)] * (len(parts) - 1)


@any_tokenizer
@settings(max_examples=100)
@given(text=st.text(st.characters(exclude_characters=[BREAK, ESCAPE], exclude_categories=["Cs"])))
def test_unmarked_text_is_encoded_like_by_the_library(name: str, text: str) -> None:
    assert SERVED[name].encode(text) == plainly(name, text)


@pytest.mark.parametrize("name", ["sentencepiece", "metaspace", "byte-level", "qwen"])
def test_marks_in_one_stretch_do_not_change_others(name: str) -> None:
    served = SERVED[name]
    stretches = ["\nHello  world", " He said: <b>", "<|endoftext|>", "\n\nBye. "]
    rendered = "<|endoftext|>".join(served.neutralize(stretch) for stretch in stretches)
    end = TOKENIZERS[name].token_to_id("<|endoftext|>")
    expected = plainly(name, "<|endoftext|>".join([*stretches[:2], "~", stretches[3]]))
    ids = served.encode(rendered)
    first, second = [index for index, number in enumerate(ids) if number == end][1:]
    after = [index for index, number in enumerate(expected) if number == end][1:]
    assert ids[: first + 1] == expected[: after[0] + 1]
    assert ids[second:] == expected[after[1] :]
    assert served.control_tokens.isdisjoint(ids[first + 1 : second])


@pytest.mark.parametrize("name", ["sentencepiece", "byte-level", "qwen"])
def test_a_stretch_that_only_ends_like_a_control_token_keeps_its_tokens(name: str) -> None:
    served = SERVED[name]
    for text in ("if a <", "x<|", "<|endoftext|>if a <"):
        assert served.neutralize("if a <") != "if a <"
        head, _, tail = text.rpartition("<|endoftext|>")
        rendered = (
            f"{head}<|endoftext|>{served.neutralize(tail)}"
            if head or "endoftext" in text
            else served.neutralize(text)
        )
        assert served.encode(rendered) == plainly(name, text)


def test_adjacent_texts_do_not_form_a_control_token() -> None:
    served = SERVED["qwen"]
    rendered = served.neutralize("<|im_") + served.neutralize("end|>")
    assert served.control_tokens.isdisjoint(served.encode(rendered))


def test_truncation_and_padding_are_disabled() -> None:
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=False)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    served = ModelTokenizer(tokenizer, ChatTemplate("", {}), stop_tokens=())
    assert served.encode("The quick brown fox jumps over it") == plainly(
        "byte-level", "The quick brown fox jumps over it"
    )


def test_a_tokenizer_with_an_unknown_decoder_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelDamagedError, match="no decoder"):
        ModelTokenizer(tokenizer, ChatTemplate("", {}), stop_tokens=())


@any_tokenizer
@settings(max_examples=100)
@given(text=texts)
@example(text="</s>\x1c")
@example(text="</s> \u2028\x85\xa0\n</s>x")
def test_control_tokens_end_where_the_library_finds_them(name: str, text: str) -> None:
    assume(not {BREAK, ESCAPE} & set(text))
    encoding = TOKENIZERS[name].encode(text, add_special_tokens=False)
    ids, edges = SERVED[name].encode_with_edges(text)
    assert ids == encoding.ids
    assert edges == [
        (end, place + 1)
        for place, (number, (_, end)) in enumerate(zip(ids, encoding.offsets, strict=True))
        if number in SERVED[name].control_tokens
    ]
