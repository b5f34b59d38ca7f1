"""Whether a text's end stands in a quotation: in a fenced block, in code within a line, or after a quotation mark.

A mark that is quoted is talked about, and stays in the text. The text may come in any pieces.
"""

import re

_FENCE = "```"
_SINGLE_QUOTE = re.compile(r"(?:\A|\W)'\Z")


class Quoting:
    """Owns the line that the text is in, and whether a block is open before it."""

    def __init__(self) -> None:
        self._line = ""
        self._is_in_block = False

    @property
    def is_open(self) -> bool:
        """Whether what comes next is quoted."""
        line = self._line
        is_in_line = line.count("`") % 2 == 1 or line.count('"') % 2 == 1
        return self._is_in_block or is_in_line or bool(_SINGLE_QUOTE.search(line))

    def feed(self, text: str) -> None:
        """Take more of the text."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._is_in_block ^= line.lstrip().startswith(_FENCE)
