"""Protocol of a model's tokenizer as prompt and reply use it; implemented in
models/tokenizer/chat_tokenizer.py.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns one sequence's tokens into text while they arrive. One per generation."""

    def feed(self, token_id: int) -> str:
        """Return the text that is final; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """Return the pending text at the end of the sequence."""
        ...


class ChatTokenizer(Protocol):
    """A model's tokenizer together with its chat template."""

    @property
    def controls(self) -> Mapping[str, int]:
        """Control tokens by their text: only the chat template and the model write them."""
        ...

    @property
    def text_start(self) -> tuple[int, ...]:
        """Tokens that begin a text without a chat template."""
        ...

    def has_token(self, token_id: int) -> bool:
        """Whether the vocabulary has this id, which must be in [0, 2**32)."""
        ...

    def bytes_of(self, token_id: int) -> bytes | None:
        """Return a token's bytes in a text; None if it is a control token."""
        ...

    def name_of(self, token_id: int) -> str:
        """Return a token's name in the vocabulary; empty for an unknown id."""
        ...

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Return the chat template's text for `messages`, up to where the answer begins.

        variables: of the template, in addition to the messages. Raises `InvalidRequestError` if the
        template refuses the conversation.
        """
        ...

    def neutralize(self, text: str) -> str:
        """Mark a client's text so that `encode` reads no control token in it."""
        ...

    def encode(self, rendered: str) -> list[int]:
        """Return token ids of rendered text: control tokens only where the template wrote them."""
        ...

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens and the ends of control tokens: (offset in `rendered`, tokens before).

        Tokens before such an offset do not depend on what follows it. Ascending.
        """
        ...

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> Detokenizer:
        """Return a detokenizer for the tokens after `preceding`.

        marks: control tokens whose text is returned; others are dropped.
        """
        ...
