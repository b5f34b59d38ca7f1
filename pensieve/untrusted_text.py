"""Make text from other sources safe for a terminal or a log by escaping control characters.

For whole names, messages and settings. A model's answer arrives in pieces and goes through
cli/ui/escapes.py.
"""

import re

# C0 and C1 controls; embeddings, overrides and isolates, which make a line display in another order
# than it is stored (CVE-2021-42574).
CONTROLS = r"\x00-\x1f\x7f-\x9f"
BIDI_CONTROLS = r"\u202a-\u202e\u2066-\u2069"
# U+2028 and U+2029 end lines for some readers; a lone surrogate cannot be encoded.
UNSAFE = re.compile(rf"[{CONTROLS}{BIDI_CONTROLS}\u2028\u2029\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSAFE_IN_LINES = re.compile(rf"(?![\n\t]){UNSAFE.pattern}")


def one_line(text: str) -> str:
    r"""Return `text` with unsafe characters as \n, \r, \xNN or \uNNNN."""
    return UNSAFE.sub(_escape, text)


def lines(text: str) -> str:
    """Escape like `one_line`, but keep line ends and tabs: for text with pensieve's own layout."""
    return _UNSAFE_IN_LINES.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """Escape without a codec: codecs open files, and logging must work without free descriptors."""
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
