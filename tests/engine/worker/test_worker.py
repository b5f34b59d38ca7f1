"""Why a model did not load, in words that can be shown: a sentence, on a line."""

import pytest

from pensieve.engine.worker.worker import MAX_REASON_CHARS, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ValueError("Missing 2 parameters: \nb.weight,\nb.bias."),
            "Missing 2 parameters: b.weight, b.bias.",
        ),
        (KeyError("layers"), "KeyError: 'layers'"),
        (ValueError(), "ValueError: "),
        (SystemExit(1), "SystemExit: 1"),
        (RuntimeError("[metal::malloc] no\n  more"), "RuntimeError: [metal::malloc] no more"),
    ],
)
def test_a_reason_is_one_line(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_long_reason_is_shortened() -> None:
    reason = reason_of(ValueError("Missing parameters: " + "a" * 10_000))
    assert reason.endswith("aaa …")
    assert len(reason) == MAX_REASON_CHARS + 2
