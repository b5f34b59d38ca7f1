import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pensieve.models.tokenizer.detokenizer import StreamDetokenizer, TokenTexts
from tests.support import tiny_models

TOKENIZERS = {
    "sentencepiece": tiny_models.phi3_tokenizer(),
    "byte-level": tiny_models.byte_level_tokenizer(is_qwen=False),
    "qwen": tiny_models.byte_level_tokenizer(is_qwen=True),
}
HIDDEN = {
    name: {
        number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    for name, tokenizer in TOKENIZERS.items()
}
TEXTS = {name: TokenTexts(tokenizer, HIDDEN[name]) for name, tokenizer in TOKENIZERS.items()}
DIFFICULT = [
    "🙂👩‍👩‍👧🏳️‍🌈",
    "東京タワーへ行きたい",
    "naïve Straße",
    "a\r\n\tb",
    "\ufeffx\u00a0y",
    "ﷺ",
    "e\u0301",
    "  two  spaces ",
]

any_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def ids_of(name: str, text: str) -> list[int]:
    return TOKENIZERS[name].encode(text, add_special_tokens=False).ids


def detokenizer(name: str, preceding: tuple[int, ...] = ()) -> StreamDetokenizer:
    return StreamDetokenizer(TEXTS[name], preceding)


def pieces(name: str, ids: list[int]) -> list[str]:
    stream = detokenizer(name)
    return [*map(stream.feed, ids), stream.flush()]


@any_tokenizer
@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(DIFFICULT))
def test_streamed_text_equals_the_librarys_decoding(name: str, text: str) -> None:
    ids = ids_of(name, text)
    assert "".join(pieces(name, ids)) == TOKENIZERS[name].decode(ids)


@any_tokenizer
@pytest.mark.parametrize("text", DIFFICULT)
def test_no_piece_ends_within_a_character(name: str, text: str) -> None:
    ids = ids_of(name, text)
    assert not any("\ufffd" in piece for piece in pieces(name, ids))


@any_tokenizer
@settings(max_examples=200)
@given(data=st.data())
def test_any_token_sequence_decodes_without_error(name: str, data: st.DataObject) -> None:
    """Invalid bytes, control tokens, ids beyond the vocabulary: no error, and hidden tokens stay
    hidden.
    """
    size = TOKENIZERS[name].get_vocab_size()
    number = st.integers(0, 300) | st.sampled_from(sorted(HIDDEN[name])) | st.integers(0, size + 50)
    ids = data.draw(st.lists(number, max_size=40))
    written = "".join(pieces(name, ids))
    assert not any(TOKENIZERS[name].id_to_token(hidden) in written for hidden in HIDDEN[name])


@settings(max_examples=200)
@given(data=st.data())
def test_invalid_bytes_decode_like_in_the_library(data: st.DataObject) -> None:
    tokenizer: Tokenizer = TOKENIZERS["byte-level"]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=30))
    assert "".join(pieces("byte-level", ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@any_tokenizer
def test_an_unfinished_character_is_flushed_at_the_end(name: str) -> None:
    ids = ids_of(name, "🙂")
    stream = detokenizer(name)
    assert "".join(map(stream.feed, ids[:-1])) == ""
    assert stream.flush() == "\ufffd"


def test_the_first_word_of_an_answer_has_no_space_before_it() -> None:
    assert "".join(pieces("sentencepiece", ids_of("sentencepiece", "Hello"))) == "Hello"


def test_the_first_word_after_a_prefill_keeps_its_space() -> None:
    whole = ids_of("sentencepiece", "The river")
    prefill = ids_of("sentencepiece", "The")
    assert whole[: len(prefill)] == prefill
    stream = detokenizer("sentencepiece", tuple(prefill))
    assert "".join(map(stream.feed, whole[len(prefill) :])) == " river"


def test_the_first_word_after_a_control_token_has_no_space() -> None:
    prompt = ids_of("sentencepiece", "<|user|>\nHi<|end|>\n<|assistant|>\n")
    stream = detokenizer("sentencepiece", tuple(prompt))
    assert "".join(map(stream.feed, ids_of("sentencepiece", "Hello"))) == "Hello"


@any_tokenizer
def test_a_character_begun_in_the_prefill_is_completed(name: str) -> None:
    ids = ids_of(name, "a🙂")
    stream = detokenizer(name, tuple(ids[:-1]))
    assert stream.feed(ids[-1]) == "🙂"


def test_a_dialects_marks_are_text_and_other_control_tokens_are_not() -> None:
    ids = ids_of("qwen", "<think>so</think>yes<|im_end|>")
    assert "".join(pieces("qwen", ids)) == "<think>so</think>yes"
