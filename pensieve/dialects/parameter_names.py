"""Names of parameters in forms that do not quote them: what such a form cannot carry is written as `%` and two digits.

The model is told of a parameter under the name that it writes; reading undoes it.
"""

import re
from urllib.parse import quote, unquote

from pensieve.dialects.dialect import ParameterForm

# An empty name. No other name is written so: `%` itself is written as `%25`.
_EMPTY = "%"
# Between tags a name may have anything that is no part of a tag. (`%` as it is would be read as an escape.)
_NOT_IN_TAGS = re.compile(r"[<>\"%\x00-\x1f\x7f\u2028\u2029]|^\s|\s$")
_NOT_BARE = re.compile(r"[<>\"'(){},:=%\s\x00-\x1f\x7f]")
# What a written name is, for the reader and for the grammar.
IN_TAGS = r"[^<>\"\x00-\x20\x7f\u2028\u2029]([^<>\"\x00-\x1f\x7f\u2028\u2029]*[^<>\"\x00-\x20\x7f\u2028\u2029])?"
BARE = r"[^<>=:\"'(){},\s\x00-\x1f\x7f]+"


def name_pattern(form: ParameterForm) -> str:
    """A regular expression for the names that a form carries."""
    return IN_TAGS if form.quote is None else BARE


def written_name(form: ParameterForm, name: str) -> str:
    """A parameter's name as the form carries it."""
    unfit = _NOT_IN_TAGS if form.quote is None else _NOT_BARE
    return unfit.sub(lambda found: quote(found[0], safe=""), name) or _EMPTY


def read_name(form: ParameterForm, written: str) -> str:
    """The name that was written so; one that no name is written as is itself."""
    if written == _EMPTY:
        return ""
    name = unquote(written, errors="replace")
    return name if written_name(form, name) == written else written
