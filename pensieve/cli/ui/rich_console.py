"""Makes rich's consoles: one that redraws a terminal without flicker, one for a pipe."""

import io
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.theme import Theme

# For terminals without these characters. rich chooses table borders by itself.
PLAIN = str.maketrans("─━•▌…█▓▒·▁▂▃▄▅▆▇", "-=*|.#%+._.,-=+*")
# A synchronized update, ignored by terminals without it: what is between is shown at once.
BEGIN_UPDATE, END_UPDATE = "\x1b[?2026h", "\x1b[?2026l"


def terminal_console(
    write: Callable[[str], None], encoding: str, theme: Theme | None = None
) -> Console:
    """Return a console whose every write is one synchronized update. Its size must be set."""
    return Console(
        file=_Updates(write, encoding),
        force_terminal=True,
        color_system="standard",
        theme=theme,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
        _environ={},
    )


def plain_text(drawing: RenderableType, columns: int, encoding: str) -> str:
    """Return a drawing without escape sequences, and without blanks at the ends of lines."""
    file = _Plain(encoding)
    console = Console(
        file=file,
        force_terminal=False,
        color_system=None,
        width=columns,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
        _environ={},
    )
    console.print(drawing)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


class _Plain(io.StringIO):
    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._encoding

    def _visible(self, text: str) -> str:
        return text if self._encoding.startswith("utf") else text.translate(PLAIN)

    def write(self, text: str) -> int:
        return super().write(self._visible(text))


class _Updates(_Plain):
    """The file to which rich writes: each of its writes is one synchronized update."""

    def __init__(self, write: Callable[[str], None], encoding: str) -> None:
        super().__init__(encoding)
        self._write = write

    def write(self, text: str) -> int:
        self._write(f"{BEGIN_UPDATE}{self._visible(text)}{END_UPDATE}")
        return len(text)
