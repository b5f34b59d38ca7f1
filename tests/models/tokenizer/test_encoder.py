"""A tokenizer that takes too much memory or time, or panics, is refused, and the process lives on."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from pensieve.models.tokenizer.encoder import Encoder, EncodingError, try_out
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


# As published models have them, and the bound for each.
PUBLISHED: dict[str, tuple[Any, float]] = {
    "none": (None, 1),
    "Qwen": ({"type": "NFC"}, 3),
    "Gemma": (replace(SPACES, "▁"), 3),
    "Llama 2": (sequence({"type": "Prepend", "prepend": "▁"}, replace(SPACES, "▁")), 12),
    "CLIP": (sequence({"type": "NFC"}, replace({"Regex": r"\s+"}, " "), {"type": "Lowercase"}), 12),
    "Falcon H1": (sequence(), 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_normalizer_of_a_published_model_is_within_the_bound(name: str) -> None:
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
def test_a_pre_tokenizer_has_a_bound(stored: dict[str, Any], bound: float) -> None:
    growth = growth_of({"pre_tokenizer": stored})
    assert growth.pre_tokenizer == bound
    assert growth.is_bounded == (bound <= MAX_PRE_GROWTH)


def test_the_bound_holds_for_each_kind_of_normalizer() -> None:
    texts = ("a", "\u1d1c0", "\ufdfa", "ȾȾ", "中", " ", "ΐ", "İ", "\U0001d1c0")
    for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "Nmt"):
        bound = growth_of({"normalizer": {"type": kind}}).normalizer
        normalizer = getattr(normalizers, kind)()
        for text in texts:
            assert len(normalizer.normalize_str(text).encode()) <= bound * len(text.encode()), kind


def grower(factor: int, times: int) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Replace("a", "a" * factor)] * times)


def test_six_growing_normalizers_are_refused_before_a_text_is_encoded() -> None:
    encoder = Encoder(tokenizer(grower(28, 6)))
    assert encoder.growth.normalizer == 28**6 > MAX_GROWTH
    assert "no memory" in str(try_out(encoder))


def test_a_text_that_grows_too_much_is_refused_and_others_are_encoded() -> None:
    encoder = Encoder(tokenizer(grower(10, 2)))
    assert encoder.growth.is_bounded
    assert len(encoder.ids("b" * 50_000)) == 50_000
    assert len(encoder.ids("a")) == 100
    with pytest.raises(EncodingError, match="8 times longer"):
        encoder.ids("a" * 50_000)
    with pytest.raises(EncodingError, match="8 times longer"):
        encoder.encoding("a" * 50_000)


def test_a_panic_is_a_refusal_and_the_tokenizer_stays_of_use() -> None:
    encoder = Encoder(tokenizer(pre_tokenizer=split("(b+)+$")))
    with pytest.raises(EncodingError, match="retry-limit"):
        encoder.ids("b" * 40 + "c")
    assert encoder.ids("abc") == [97, 98, 99]


def test_a_fault_of_the_library_is_a_refusal() -> None:
    encoder = Encoder(Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(EncodingError, match="does not take this text"):
        encoder.ids("b")


def test_a_tokenizer_that_panics_at_ordinary_text_fails_its_trial() -> None:
    assert "ordinary text" in str(try_out(Encoder(tokenizer(pre_tokenizer=split("(a+)+$|-")))))


class Waiting(Encoder):
    """Is done when it is told so."""

    def __init__(self, until: Callable[[], object]) -> None:
        super().__init__(tokenizer())
        self.until = until

    def ids(self, text: str) -> list[int]:
        self.until()
        return []


def test_a_tokenizer_that_is_not_done_in_time_fails_its_trial() -> None:
    end = threading.Event()
    assert "more than 0.01 s" in str(try_out(Waiting(end.wait), limit_s=0.01))
    end.set()


def test_an_ordinary_tokenizer_passes_its_trial() -> None:
    assert try_out(Encoder(tokenizer(pre_tokenizer=split(r" ?\p{L}+|\s+(?!\S)|\s+")))) is None
