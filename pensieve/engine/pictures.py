"""Pictures in the prompt of a generation. No MLX."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class PromptPicture:
    """A picture in a prompt: `rows * columns` tokens from `start`, row by row."""

    id: str  # of its content and of how it was prepared, in hexadecimal digits
    start: int
    rows: int
    columns: int
    # Returns 8-bit RGB, row by row, of the size that the model takes for these rows and columns.
    # The front end calls it when the engine has neither the picture's KV nor its embeddings; it is
    # never sent to the engine.
    pixels: Callable[[], Awaitable[bytes]] | None = field(default=None, compare=False, repr=False)

    @property
    def tokens(self) -> range:
        """The places of its tokens in the prompt."""
        return range(self.start, self.start + self.rows * self.columns)


def picture_token(picture_id: str, place: int) -> int:
    """Return the token in `place` of a picture: negative, so that it is no token of a text.

    It depends on the picture, so that prompts with different pictures share no prefix there.
    """
    digest = blake2b(f"{picture_id} {place}".encode(), digest_size=4).digest()
    return -1 - (int.from_bytes(digest) >> 1)


def check_places(pictures: Sequence[PromptPicture], tokens: int) -> None:
    """Raise ValueError unless these are the pictures of a prompt of so many tokens."""
    after = 0
    for picture in pictures:
        if picture.start < after or min(picture.rows, picture.columns) < 1:
            raise ValueError("the pictures of a prompt are not in the order of their places")
        after = picture.tokens.stop
    if after > tokens:
        raise ValueError("a picture does not fit the prompt")


def text_tokens(tokens: Sequence[int], pictures: Sequence[PromptPicture]) -> Sequence[int]:
    """Return a prompt's tokens without those of pictures, which no vocabulary has."""
    return [token for token in tokens if token >= 0] if pictures else tokens
