"""A prompt's tokens, split into read, written and the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.content_blocks import Breakpoint
from pensieve.reply.reply import PromptUsage, prompt_usage

breakpoints = st.lists(
    st.builds(Breakpoint, tokens=st.integers(0, 100), ttl=st.sampled_from(["5m", "1h"])), max_size=5
)


@given(st.integers(0, 100), breakpoints)
def test_read_written_and_rest_add_up_to_the_prompt(cached: int, marks: list[Breakpoint]) -> None:
    usage = prompt_usage(100, cached, marks)
    assert usage.read + usage.written_5m + usage.written_1h + usage.rest == 100
    assert min(usage.read, usage.written_5m, usage.written_1h, usage.rest) >= 0
    assert usage.read == cached


@pytest.mark.parametrize(
    ("cached", "marks", "usage"),
    [
        (30, [], PromptUsage(read=30, written_5m=0, written_1h=0, rest=70)),
        (0, [Breakpoint(80)], PromptUsage(read=0, written_5m=80, written_1h=0, rest=20)),
        (30, [Breakpoint(80)], PromptUsage(read=30, written_5m=50, written_1h=0, rest=20)),
        (90, [Breakpoint(80)], PromptUsage(read=90, written_5m=0, written_1h=0, rest=10)),
        (
            10,
            [Breakpoint(80), Breakpoint(50, "1h")],
            PromptUsage(read=10, written_5m=30, written_1h=40, rest=20),
        ),
        (
            60,
            [Breakpoint(50, "1h"), Breakpoint(80)],
            PromptUsage(read=60, written_5m=20, written_1h=0, rest=20),
        ),
    ],
)
def test_processed_tokens_before_a_breakpoint_count_as_written_by_ttl(
    cached: int, marks: list[Breakpoint], usage: PromptUsage
) -> None:
    assert prompt_usage(100, cached, marks) == usage
