"""The reason for a failed load is one line that can be shown."""

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
def test_reason_for_a_failed_load_is_one_line(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_long_reason_is_truncated() -> None:
    reason = reason_of(ValueError("Missing parameters: " + "a" * 10_000))
    assert reason.endswith("aaa …")
    assert len(reason) == MAX_REASON_CHARS + 2
