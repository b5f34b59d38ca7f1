"""Grammars for the input of custom tools, with the expression that each must match."""

# Texts that even a model that means nothing by them ends soon.
PATCH = r"""
start: "=== Begin" LF change "=== End" LF?
change: added | changed
added: "=== Add: " path LF ("+" text LF) ~ 1..2
changed: "=== Change: " path LF "@@" (" " text)? LF line ~ 1..2
path: /[a-z]{1,8}/ ("/" /[a-z]{1,8}/)? ".py"
line: ("+" | "-" | " ") text LF
text: /[^\n]{0,9}/
%import common.LF
"""
_TEXT, _PATH = r"[^\n]{0,9}", r"[a-z]{1,8}(?:/[a-z]{1,8})?\.py"
_CHANGE = (
    rf"(?:=== Add: {_PATH}\n(?:\+{_TEXT}\n){{1,2}}"
    rf"|=== Change: {_PATH}\n@@(?: {_TEXT})?\n(?:[+ -]{_TEXT}\n){{1,2}})"
)
CODES = "|".join(f"{letter}{letter}-[0-9]{{3}}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SUM = 'start: /[0-9]{1,2}/ ("+" "(" start ")")?'

GRAMMARS = {
    "lark": (
        {"syntax": "lark", "definition": PATCH},
        rf"=== Begin\n{_CHANGE}=== End\n?",
    ),
    "regex": ({"syntax": "regex", "definition": f"^({CODES})$"}, CODES),
    "recursive": ({"syntax": "lark", "definition": SUM}, r"[0-9+()]+"),
}
