"""Track whether the end of a text is quoted: in a fenced block, inline code or quotation marks.

The answer parser treats a mark that is quoted as text. The text may arrive in any pieces.
"""

import re

_FENCE = "```"
_SINGLE_QUOTE = re.compile(r"(?:\A|\W)'\Z")


class Quoting:
    """Owns the current line, and whether a fenced block is open before it."""

    def __init__(self) -> None:
        self._line = ""
        self._is_in_block = False

    @property
    def is_open(self) -> bool:
        """Whether the next character is quoted."""
        line = self._line
        is_in_line = line.count("`") % 2 == 1 or line.count('"') % 2 == 1
        return self._is_in_block or is_in_line or bool(_SINGLE_QUOTE.search(line))

    def is_new_line_after(self, text: str) -> bool:
        """Whether a line that is blank so far is open after `text`, outside of fenced blocks."""
        after = Quoting()
        after._line, after._is_in_block = self._line, self._is_in_block
        after.feed(text)
        return not after._is_in_block and not after._line.strip()

    def feed(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._is_in_block ^= line.lstrip().startswith(_FENCE)
