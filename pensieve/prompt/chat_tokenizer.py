"""What prompt and reply need of a model's tokenizer. The implementation is handed in (models/tokenizer/chat_tokenizer.py)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns one sequence's tokens into text while they arrive. One per generation."""

    def feed(self, token_id: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What was held back, at the end of the sequence."""
        ...


class ChatTokenizer(Protocol):
    """A model's tokenizer together with its chat template."""

    @property
    def controls(self) -> Mapping[str, int]:
        """The tokens that only the chat template and the model itself write, by their texts."""
        ...

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The chat template's text for `messages`, ending where the assistant's answer begins.

        variables: what the template is told beside them. Raises `InvalidRequestError` where it refuses the conversation.
        """
        ...

    def neutralize(self, text: str) -> str:
        """`text` from a client, marked so that `encode` never reads a control token in it."""
        ...

    def encode(self, rendered: str) -> list[int]:
        """Token ids of rendered text: control tokens where the template wrote them, plain text elsewhere."""
        ...

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and where control tokens end: pairs of a place in `rendered` and the tokens up to there.

        Up to such a place the tokens depend on nothing behind it. Ascending.
        """
        ...

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> Detokenizer:
        """A fresh detokenizer for the tokens that follow `preceding`; control tokens say nothing but where they are `marks`."""
        ...
