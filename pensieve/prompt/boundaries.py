"""Where in a prompt's tokens something ends that other prompts share: the system part, a turn, a cache breakpoint.

A place is found by rendering the conversation that goes another way from there: what both texts begin with is shared.
Tokens are counted up to the last control token in that, since only there do they depend on nothing behind. So the law
holds by construction: prompts that continue this one begin with its tokens up to its last boundary.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pensieve.dialects.probing.probe import Message
from pensieve.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt's text and tokens. edges: as `ChatTokenizer.encode_with_edges` gives them."""

    text: str
    tokens: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]

    def tokens_within(self, letters: int) -> int:
        """How many first tokens lie safely within the first letters. The prompt's last token is never among them.

        What stands before a control token depends on it no more than what stands behind.
        """
        place = bisect_right(self.edges, (letters, len(self.tokens)))
        return min(self.edges[place - 1][1], len(self.tokens) - 1) if place else 0


class BoundaryFinder:
    """Looks for places in one rendered prompt."""

    def __init__(self, prompt: RenderedPrompt, render: Callable[[Sequence[Message]], str]) -> None:
        self._prompt = prompt
        self._render = render

    def shared_with(self, messages: Sequence[Message]) -> int:
        """How many first tokens a prompt of `messages` shares; 0 where the template does not take them."""
        try:
            other = self._render(messages)
        except InvalidRequestError:
            return 0
        return self._prompt.tokens_within(common_prefix_length(self._prompt.text, other))


def common_prefix_length(one: str, other: str) -> int:
    """The length of what both begin with. By halving: slices are compared at the speed of memory."""
    low, high = 0, min(len(one), len(other)) + 1  # the first difference lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
