"""Find where a prompt's tokens can be shared with other prompts.

Such boundaries are the ends of the system part, of turns and of cache breakpoints. They are found
by rendering a variant of the conversation: the common prefix of both texts is shared. Tokens are
counted up to the last control token in that prefix, because only there they do not depend on what
follows. So every prompt that continues this one begins with its tokens up to its last boundary.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pensieve.dialects.probing.probe import Message
from pensieve.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    text: str
    tokens: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]  # from `ChatTokenizer.encode_with_edges`

    def tokens_within(self, chars: int) -> int:
        """Return how many leading tokens lie within the first `chars` characters, whatever follows.

        The prompt's last token never counts: the engine needs one token to process.
        """
        index = bisect_right(self.edges, (chars, len(self.tokens)))
        return min(self.edges[index - 1][1], len(self.tokens) - 1) if index else 0


class BoundaryFinder:
    def __init__(self, prompt: RenderedPrompt, render: Callable[[Sequence[Message]], str]) -> None:
        self._prompt = prompt
        self._render = render

    def shared_with(self, messages: Sequence[Message]) -> int:
        """Return the number of leading tokens shared with a prompt of `messages`.

        0 if the template refuses `messages`.
        """
        try:
            other = self._render(messages)
        except InvalidRequestError:
            return 0
        return self._prompt.tokens_within(common_prefix_length(self._prompt.text, other))


def common_prefix_length(one: str, other: str) -> int:
    """Return the number of common leading characters. Bisects, since comparing slices is fast."""
    low, high = 0, min(len(one), len(other)) + 1  # the first difference lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
