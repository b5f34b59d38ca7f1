"""Text that others chose, made safe for a terminal or a log: what would act on one is written out instead.

Names, messages and settings come here whole; a model's answer, which comes in pieces, goes through cli/ui/escapes.py.
"""

import re

# C0 and C1 controls; embeddings, overrides and isolates, by which a line reads otherwise than it is (CVE-2021-42574).
CONTROLS = r"\x00-\x1f\x7f-\x9f"
BIDI_CONTROLS = r"\u202a-\u202e\u2066-\u2069"
# U+2028 and U+2029 end lines for some readers; half a surrogate cannot be encoded.
UNSAFE = re.compile(rf"[{CONTROLS}{BIDI_CONTROLS}\u2028\u2029\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSAFE_IN_LINES = re.compile(rf"(?![\n\t]){UNSAFE.pattern}")


def one_line(text: str) -> str:
    r"""Return `text` with everything unsafe as \n, \r, \xNN or \uNNNN."""
    return UNSAFE.sub(_written_out, text)


def lines(text: str) -> str:
    """As `one_line`, but line ends and tabs stay: for text whose layout is ours."""
    return _UNSAFE_IN_LINES.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    """By hand: a codec is a file, and a log must be written when no more files can be opened."""
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
