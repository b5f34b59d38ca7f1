"""Put the tokens of pictures in the places of their marks.

A template writes each picture as a start mark, one pad and an end mark; here a picture's own tokens
take the place of the pad, so that no text, whatever it has in it, becomes part of a picture.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import Match

from pensieve.api.messages.content_blocks import ReadImage
from pensieve.engine.pictures import PromptPicture, picture_token
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.pictures import MARK, mark_of

# Pictures whose tokens are kept: a conversation sends the same ones with every turn. 5 KB each by
# default.
_KEPT_PICTURES = 256


@dataclass(frozen=True, slots=True)
class PictureMarks:
    """The model's tokens around a picture, and the one that templates write for it."""

    start: int
    pad: int
    end: int


class PromptPictures:
    """The pictures of one conversation, for its prompt."""

    def __init__(self, marks: PictureMarks, pictures: Iterable[ReadImage]) -> None:
        listed = [(mark_of(picture.picture_id), picture) for picture in pictures]
        self._marks = marks
        self._by_mark = dict(listed)
        self._counts = Counter(mark for mark, _ in listed)

    def check(self, text: str) -> None:
        """Raise `InvalidRequestError` unless the text has each picture as often as the request."""
        if Counter(found[0] for found in self.places(text, 0, len(text))) != self._counts:
            raise InvalidRequestError(
                "messages: the model's chat template does not show all pictures of this"
                " conversation"
            )

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise `InvalidRequestError` if tokens of a text have a pad, the place of a picture."""
        if self._marks.pad in tokens:
            raise InvalidRequestError("messages: the prompt has a place for a picture without one")

    def places(self, text: str, start: int, end: int) -> Iterator[Match[str]]:
        """Yield where pictures are in a part of the text."""
        return (found for found in MARK.finditer(text, start, end) if found[0] in self._by_mark)

    def write(self, mark: str, tokens: list[int]) -> PromptPicture:
        """Append the picture's tokens, and those around it."""
        picture = self._by_mark[mark]
        tokens.append(self._marks.start)
        start = len(tokens)
        tokens += _tokens_of(picture.picture_id, picture.rows * picture.columns)
        tokens.append(self._marks.end)
        return PromptPicture(
            picture.picture_id, start, picture.rows, picture.columns, picture.pixels
        )


@lru_cache(_KEPT_PICTURES)
def _tokens_of(picture_id: str, count: int) -> "array[int]":
    return array("i", (picture_token(picture_id, place) for place in range(count)))
