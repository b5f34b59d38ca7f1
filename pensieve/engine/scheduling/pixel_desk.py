"""Pixels of pictures on their way to the tower: what is asked of the front end, and what came.

Only pictures that neither a cached prefix nor kept embeddings cover are asked for, when the prompt
before them is processed. No MLX.
"""

from dataclasses import dataclass, field

# A worker that can do nothing else waits this long at a time.
WAIT_S = 0.05
# Asked for at a time: those of the next pictures come while the tower looks at one.
MOST_ASKED = 2


@dataclass(slots=True)
class PixelDesk:
    """Owned by the worker; used by its main loop and by the batch."""

    is_awaited: bool = False  # nothing else can be done before pixels come
    _asked: dict[str, set[int]] = field(default_factory=dict[str, set[int]])  # keys by picture
    _wanted: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    _parts: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    _pixels: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def wait_s(self) -> float:
        """Seconds for which the main loop may wait for frames."""
        return WAIT_S if self.is_awaited else 0

    def want(self, key: int, picture_id: str) -> None:
        """Ask for a picture of this generation, unless that was done."""
        keys = self._asked.setdefault(picture_id, set())
        if key not in keys:
            keys.add(key)
            self._wanted.append((key, picture_id))

    def take_wanted(self) -> list[tuple[int, str]]:
        """Return what was not taken yet: generations and their pictures."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def add(self, picture_id: str, content: bytes, *, is_last: bool) -> None:
        """Take a part of a picture; ignored unless it was asked for."""
        self.is_awaited = False
        if picture_id not in self._asked:
            return
        part = self._parts.setdefault(picture_id, bytearray())
        part += content
        if is_last:
            self._pixels[picture_id] = bytes(self._parts.pop(picture_id))

    def pixels(self, picture_id: str) -> bytes | None:
        return self._pixels.get(picture_id)

    def drop(self, picture_id: str) -> None:
        """Forget a picture that the tower has looked at."""
        for pictures in (self._asked, self._parts, self._pixels):
            pictures.pop(picture_id, None)

    def forget(self, key: int) -> None:
        """Forget what is asked for by a generation that ended, and by no other."""
        self.is_awaited = False
        self._wanted = [wanted for wanted in self._wanted if wanted[0] != key]
        for picture_id, keys in list(self._asked.items()):
            keys.discard(key)
            if not keys:
                self.drop(picture_id)

    def clear(self) -> None:
        self._wanted.clear()
        for pictures in (self._asked, self._parts, self._pixels):
            pictures.clear()
        self.is_awaited = False
