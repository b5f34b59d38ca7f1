"""Escape parameter names in forms that do not quote them.

Unsupported characters become `%` and two hex digits. The model sees a parameter under its escaped
name; parsing reverses it.
"""

import re
from urllib.parse import quote, unquote

from pensieve.dialects.dialect import ParameterForm

# An empty name. No other name is escaped to this: `%` becomes `%25`.
_EMPTY = "%"
# Characters that a name between tags cannot contain. (A plain `%` would be read as an escape.)
_NOT_IN_TAGS = re.compile(r"[<>\"%\x00-\x1f\x7f\u2028\u2029]|^\s|\s$")
_NOT_BARE = re.compile(r"[<>\"'(){},:=%\s\x00-\x1f\x7f]")
# Escaped names, for the parser and the grammar.
IN_TAGS = (
    r"[^<>\"\x00-\x20\x7f\u2028\u2029]"
    r"([^<>\"\x00-\x1f\x7f\u2028\u2029]*[^<>\"\x00-\x20\x7f\u2028\u2029])?"
)
BARE = r"[^<>=:\"'(){},\s\x00-\x1f\x7f]+"


def name_pattern(form: ParameterForm) -> str:
    """Return a regular expression for escaped names."""
    return IN_TAGS if form.quote is None else BARE


def written_name(form: ParameterForm, name: str) -> str:
    """Return a parameter's escaped name."""
    unsupported = _NOT_IN_TAGS if form.quote is None else _NOT_BARE
    return unsupported.sub(lambda found: quote(found[0], safe=""), name) or _EMPTY


def read_name(form: ParameterForm, written: str) -> str:
    """Return the name that `written` escapes; `written` itself if it escapes none."""
    if written == _EMPTY:
        return ""
    name = unquote(written, errors="replace")
    return name if written_name(form, name) == written else written
