"""A tokenizer that needs too much memory or time, or panics, is refused without harm to the
process.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from pensieve.models.tokenizer.encoder import Encoder, EncodingError, find_fault
from pensieve.models.tokenizer.growth_limits import MAX_GROWTH, MAX_PRE_GROWTH, growth_of

LETTERS = {chr(code): code for code in range(128)}
SPACES = {"String": " "}


def tokenizer(
    normalizer: normalizers.Normalizer | None = None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
) -> Tokenizer:
    built = Tokenizer(models.BPE(vocab=LETTERS, merges=[]))
    if normalizer is not None:
        built.normalizer = normalizer
    if pre_tokenizer is not None:
        built.pre_tokenizer = pre_tokenizer
    return built


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


# Normalizers of published models, and the bound for each.
PUBLISHED: dict[str, tuple[Any, float]] = {
    "none": (None, 1),
    "Qwen": ({"type": "NFC"}, 3),
    "Gemma": (replace(SPACES, "▁"), 3),
    "Llama 2": (sequence({"type": "Prepend", "prepend": "▁"}, replace(SPACES, "▁")), 12),
    "CLIP": (sequence({"type": "NFC"}, replace({"Regex": r"\s+"}, " "), {"type": "Lowercase"}), 12),
    "Falcon H1": (sequence(), 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_normalizers_are_within_the_limit(name: str) -> None:
    stored, bound = PUBLISHED[name]
    growth = growth_of({"normalizer": stored})
    assert growth.normalizer == bound
    assert growth.is_bounded


@pytest.mark.parametrize(
    ("stored", "bound"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False}, 2),
        ({"type": "ByteLevel", "add_prefix_space": True}, 4),
        ({"type": "Metaspace", "replacement": "▁"}, 6),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}, 2),
        ({"type": "Split", "pattern": {"Regex": r"\s"}}, 1),
        ({"type": "Unheard"}, float("inf")),
    ],
)
def test_pre_tokenizers_are_bounded(stored: dict[str, Any], bound: float) -> None:
    growth = growth_of({"pre_tokenizer": stored})
    assert growth.pre_tokenizer == bound
    assert growth.is_bounded == (bound <= MAX_PRE_GROWTH)


def test_the_bound_holds_for_each_normalizer() -> None:
    texts = ("a", "\u1d1c0", "\ufdfa", "ȾȾ", "中", " ", "ΐ", "İ", "\U0001d1c0")
    for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "Nmt"):
        bound = growth_of({"normalizer": {"type": kind}}).normalizer
        normalizer = getattr(normalizers, kind)()
        for text in texts:
            assert len(normalizer.normalize_str(text).encode()) <= bound * len(text.encode()), kind


def grower(factor: int, times: int) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Replace("a", "a" * factor)] * times)


def test_multiplying_normalizers_are_refused_before_encoding() -> None:
    encoder = Encoder(tokenizer(grower(28, 6)))
    assert encoder.growth.normalizer == 28**6 > MAX_GROWTH
    assert "no memory" in str(find_fault(encoder))


def test_only_a_text_that_grows_too_much_is_refused() -> None:
    encoder = Encoder(tokenizer(grower(10, 2)))
    assert encoder.growth.is_bounded
    assert len(encoder.ids("b" * 50_000)) == 50_000
    assert len(encoder.ids("a")) == 100
    with pytest.raises(EncodingError, match="8 times longer"):
        encoder.ids("a" * 50_000)
    with pytest.raises(EncodingError, match="8 times longer"):
        encoder.encoding("a" * 50_000)


def test_a_panic_raises_encoding_error_and_the_tokenizer_stays_usable() -> None:
    encoder = Encoder(tokenizer(pre_tokenizer=split("(b+)+$")))
    with pytest.raises(EncodingError, match="retry-limit"):
        encoder.ids("b" * 40 + "c")
    assert encoder.ids("abc") == [97, 98, 99]


def test_a_library_error_raises_encoding_error() -> None:
    encoder = Encoder(Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(EncodingError, match="does not accept this text"):
        encoder.ids("b")


def test_a_tokenizer_that_panics_on_ordinary_text_has_a_fault() -> None:
    assert "ordinary text" in str(find_fault(Encoder(tokenizer(pre_tokenizer=split("(a+)+$|-")))))


class Waiting(Encoder):
    """Encodes only after `until` returns."""

    def __init__(self, until: Callable[[], object]) -> None:
        super().__init__(tokenizer())
        self.until = until

    def ids(self, text: str) -> list[int]:
        self.until()
        return []


def test_a_slow_tokenizer_has_a_fault() -> None:
    end = threading.Event()
    assert "more than 0.01 s" in str(find_fault(Waiting(end.wait), limit_s=0.01))
    end.set()


def test_an_ordinary_tokenizer_has_no_fault() -> None:
    assert find_fault(Encoder(tokenizer(pre_tokenizer=split(r" ?\p{L}+|\s+(?!\S)|\s+")))) is None
