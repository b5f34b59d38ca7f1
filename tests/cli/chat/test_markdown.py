"""Markdown as it is drawn: the same at the end however it came, never over what has scrolled away, never with a model's own escapes."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.chat.markdown_blocks import Blocks, Prose
from pensieve.cli.chat.markdown_rows import Rows
from pensieve.cli.chat.screen import Screen
from pensieve.cli.chat.view import BufferedView, DrawnView
from tests.cli.terminal import Terminal

ANSWER = """\
# A comparison

Here is a **bold claim** with `inline code`, *emphasis*, and a [link](https://example.org/a) that has to be wrapped, 日本語 🙂 too.
Another line.

Look:
| Name | Size |
|:-----|-----:|
| phi-3-mini | 2.3 GB |
| qwen3 🙂 | 4.6 GB |

```python
def hello(name: str) -> str:
    # greet
    return f"Hello {name}, and a line that is much longer than this narrow terminal is wide"

```

1. First with many words so that it is wrapped somewhere
2. Second
   - nested
3. Third
   ```
   code
   ```

> quoted

---
The end."""

PARTS = [
    *[
        "# Head\n",
        "\n",
        "\n\n",
        "word ",
        "**bold",
        "** ",
        "`code` ",
        "- item\n",
        "1. one\n",
        "2. two\n",
        "   more\n",
    ],
    *[
        "| a | b |\n",
        "|---|:-:|\n",
        "| 1 | 2 |\n",
        "```\n",
        "```py\n",
        "~~~\n",
        "x = 1  # é日本\n",
        "> said\n",
        "---\n",
    ],
    *[
        "===\n",
        "    indented\n",
        "[a](http://b)",
        "![i](u)",
        "<b>",
        "*",
        "_",
        "|",
        "`",
        "-",
        "1.",
        "\t",
        "🙂",
        "&amp;",
        "\\",
    ],
]
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=25).map("".join)


def view_on(terminal: Terminal, **changes: bool) -> DrawnView:
    return DrawnView(
        Rows(),
        Screen(terminal.write, terminal.size),
        **{"hides_thoughts": False, **changes},
        clock=iter(range(10**9)).__next__,
    )


def shown(text: str, *, pieces: list[str] | None = None, columns: int = 40, lines: int = 24) -> str:
    terminal = Terminal(columns, lines)
    view = view_on(terminal)
    for piece in pieces or [text]:
        view.say(piece)
    view.end()
    return terminal.text


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[a:b] for a, b in pairwise(edges)]


def test_an_answer_with_everything_in_it_looks_as_it_should() -> None:
    assert (
        shown(ANSWER, columns=60)
        == """\
A comparison

Here is a bold claim with inline code, emphasis, and a link
(https://example.org/a) that has to be wrapped, 日本語 🙂
too.
Another line.

Look:

 Name          Size
 ──────────────────
 phi-3-mini  2.3 GB
 qwen3 🙂    4.6 GB

── python ──────────────────────────────
def hello(name: str) -> str:
    # greet
    return f"Hello {name}, and a line that is much longer th
an this narrow terminal is wide"

────────────────────────────────────────

 1. First with many words so that it is wrapped somewhere
 2. Second
     • nested
 3. Third
    code

▌ quoted

────────────────────────────────────────

The end."""
    )


@given(texts, st.lists(st.integers(0, 120)), st.integers(3, 9))
@settings(max_examples=150)
def test_the_end_is_the_same_however_it_came_and_however_low_the_terminal_is(
    text: str, places: list[int], lines: int
) -> None:
    whole = shown(text)
    assert shown(text, pieces=cut(text, places), lines=lines) == whole


@pytest.mark.parametrize("lines", [4, 10, 50])
def test_word_by_word_is_the_same_as_at_once(lines: int) -> None:
    words = re.split(r"(?<=\s)", ANSWER)
    assert shown(ANSWER, pieces=words, lines=lines) == shown(ANSWER)
    assert shown(ANSWER, pieces=list(ANSWER), lines=lines) == shown(ANSWER)


def test_a_table_with_a_row_a_line_never_shows_its_source() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for character in "Look:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |":
        view.say(character)
        assert "|" not in terminal.text
    assert " 1  2" in terminal.text


def test_marks_that_are_still_open_look_closed() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for character in "This is **bold** and `code` here":
        view.say(character)
        assert not re.search(r"\*\w|`\w", terminal.text), terminal.text


def test_what_is_finished_is_written_once() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    view.say("The first paragraph.\n\n```\nthe_code()\n")
    before = len(terminal.writes)
    for word in ["and(", "more)\n", "```\n\n", "Then ", "the ", "rest."]:
        view.say(word)
    view.end()
    later = "".join(terminal.writes[before:])
    assert "first" not in later
    assert "the_code" not in later
    assert "Then the rest." in terminal.text


def test_only_rows_that_differ_are_written_again() -> None:
    terminal = Terminal(20)
    view = view_on(terminal)
    view.say("one two three four five six seven eight nine")
    view.say(" ten")
    assert "one" not in terminal.writes[-1]
    assert "ten" in terminal.writes[-1]


def test_each_drawing_is_one_write_between_the_marks_of_an_update() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for word in re.split(r"(?<=\s)", ANSWER):
        view.say(word)
    view.end()
    for written in terminal.writes:
        assert re.fullmatch(r"\x1b\[\?2026h.*\x1b\[\?2026l", written, re.DOTALL)
        assert written.count("\x1b[?2026") == 2


def test_a_row_that_comes_to_be_full_keeps_its_last_character() -> None:
    terminal = Terminal(columns=20)
    view = view_on(terminal)
    for piece in ("twenty letters in i", "t", " and", " more"):
        view.say(piece)
    view.end()
    assert terminal.text == "twenty letters in it\nand more"


def test_nothing_above_the_terminal_is_reached_for() -> None:
    """A table taller than the terminal: its end is shown while it grows, all of it when it is whole."""
    rows = "".join(f"| {n} | x |\n" for n in range(30))
    terminal = Terminal(40, 8)
    view = view_on(terminal)
    for line in ["Before.\n\n", "| n | x |\n|---|---|\n", *rows.splitlines(keepends=True)]:
        view.say(line)
        assert len(terminal.rows) <= 8 + 2
    view.end()
    numbers = [int(row.split()[0]) for row in terminal.rows if re.match(r" \d", row)]
    assert numbers == list(range(30))


def test_a_terminal_that_becomes_narrower_and_wider_shows_each_word_once() -> None:
    words = [f"word{n} " for n in range(60)]
    terminal = Terminal(60, 24)
    view = view_on(terminal)
    for at, word in enumerate(words):
        if at in {20, 40}:
            terminal.resize({20: 31, 40: 70}[at], 24)
        view.say(word)
    view.end()
    assert terminal.text.split() == "".join(words).split()


def test_a_line_of_code_is_left_for_the_terminal_to_break_so_that_it_can_be_copied() -> None:
    terminal = Terminal(20)
    view = view_on(terminal)
    long = "x = '" + "y" * 50 + "'"
    view.say(f"```\n{long[:30]}")
    view.say(f"{long[30:]}\n```")
    view.end()
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", terminal.writes[1])
    assert long in plain
    assert terminal.text.replace("\n", "").strip("─") == long


def test_code_is_coloured_and_text_is_not() -> None:
    terminal = Terminal(60)
    view = view_on(terminal)
    view.say("def here\n\n```python\ndef there(): pass\n```\n")
    written = "".join(terminal.writes)
    assert re.search(r"\x1b\[35mdef\x1b\[0m", written)
    assert "def here" in written


CODE = {
    "python": "@dec\nclass A(B):\n    '''doc'''\n    def f(self, x=1.5):\n        return not x and f'a{x!r}'\nraise None ?? $",
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n",
    "html": "<!DOCTYPE html><a href='x'>&amp;</a><script>var x=/r/g</script>",
    "console": "$ ls | grep x # c\nout",
    "pytb": 'Traceback (most recent call last):\n  File "x", line 1, in y\n    z\nValueError: d',
    "json": '{"a": [1, true, null, "x"]}',
    "markdown": "# h\n**b** *i* [l](u)\n`c`\n> q",
}
# Bold, dim, italic, underlined, crossed out; red, green, magenta, cyan, as the terminal's owner has them. No ground, no yellow, white or black.
SEEN_ON_ANY_GROUND = {"0", "1", "2", "3", "4", "9", "31", "32", "35", "36"}


def test_what_is_drawn_can_be_read_on_a_light_and_on_a_dark_ground() -> None:
    fences = "".join(f"\n```{language}\n{code}\n```\n" for language, code in CODE.items())
    inline = (
        "\n#### h4\n~~gone~~ <http://a.b> ![i](u) <b>html</b>\n\n<div>block</div>\n\n    indented\n"
    )
    terminal = Terminal()
    view = view_on(terminal)
    view.think("A thought.")
    view.say(ANSWER + inline + fences)
    view.end()
    codes = re.findall(r"\x1b\[([\d;]*)m", "".join(terminal.writes))
    assert {"35", "32"} < {each for code in codes for each in code.split(";")} <= SEEN_ON_ANY_GROUND


def test_a_string_over_many_lines_stays_a_string() -> None:
    rows = Rows()
    blocks = Blocks()
    pieces = blocks.feed('```python\na = """\nfor\n"""\n')
    drawn = [row.text for piece in pieces for row in rows.of(piece, 80, folds=False)]
    assert "\x1b[32mfor\x1b[0m" in drawn


@pytest.mark.parametrize(
    "text",
    [
        "a \x1b[31mred\x1b[0m b",
        "```\n\x1b]0;owned\x07\n```",
        "```\x1b[2J\ncode\n```",
        "`\x1b[2J`",
        "| \x1b[2J | b |\n|---|---|\n| \x9b2J | \x1b]8;;x\x07 |",
        "<http://x/%1b%5b2J%07>",
        "[here](http://x/%1b%5b2J%07)",
        "[here](<http://x/&#27;[2J>)",
        "&#27;[2J &#x9b;2J &#13;over &#7; &#8; &#127;",
        "![\x1b[2J](x)",
        "    \x1b[2J indented",
        "\r\b\x00\x7f",
    ],
)
def test_no_escape_of_a_model_reaches_the_terminal(text: str) -> None:
    """The terminal of these tests refuses each sequence that is not the chat's own."""
    terminal = Terminal(40)
    view = view_on(terminal)
    view.think(text)
    for character in text:
        view.say(character)
    view.end()
    allowed = r"\x1b\[(\d*A|[\d;]*m|[KJ]|\?(7|25|2026)[hl])|\r\n|\r(?=\x1b|$)"
    for written in terminal.writes:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", re.sub(allowed, "", written)), written


@given(st.text(st.sampled_from("\x1b[]0;2Jm\x07\x9b\x9c&#27;%1b<>`|-\n http:/()")), st.booleans())
@settings(max_examples=150)
def test_no_text_whatever_writes_a_sequence(text: str, is_code: bool) -> None:
    shown(f"```\n{text}" if is_code else text)


def test_a_link_shows_where_it_leads_and_is_not_hidden_behind_its_words() -> None:
    assert shown("[bank](http://evil.example)") == "bank (http://evil.example)"
    assert shown("<http://plain.example>") == "http://plain.example"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<div>kept</div>", "<div>kept</div>"),
        ("[a]: http://b", "[a]: http://b"),
        ("Roses\nViolets", "Roses\nViolets"),
        ("9. nine\n10. ten", " 9. nine\n10. ten"),
        ("1. a\n1. b\n1. c", " 1. a\n 2. b\n 3. c"),
        ("- a\n\n- b\n\n  c", " • a\n • b\n   c"),
        ("a :smile: [bold]b[/bold]", "a :smile: [bold]b[/bold]"),
    ],
)
def test_what_a_model_says_is_shown_and_not_swallowed(text: str, said: str) -> None:
    assert shown(text) == said


def test_a_thought_is_dim_and_above_the_answer() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for piece in ["", "First\n\nI ", "wonder ", "about it."]:
        view.think(piece)
    assert terminal.text == "First\nI wonder about it."
    view.say("So")
    view.end()
    assert terminal.text == "First\nI wonder about it.\n\nSo"
    assert "\x1b[2;3mFirst\x1b[0m" in "".join(terminal.writes)


def test_a_hidden_thought_is_a_passing_word() -> None:
    terminal = Terminal(40)
    view = view_on(terminal, hides_thoughts=True)
    view.think("")
    view.think("secret")
    assert terminal.text == "thinking …"
    view.say("So")
    view.end()
    assert terminal.text == "So"
    assert "secret" not in "".join(terminal.writes)


def test_waiting_is_told_until_something_comes() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    view.wait(15.2)
    assert terminal.text == "waiting for the answer, 15 s …"
    view.say("Paris")
    assert terminal.text == "Paris"


def test_drawing_rests_between_two_pieces_and_forgets_none() -> None:
    terminal = Terminal(40)
    now = [0.0]
    view = DrawnView(
        Rows(),
        Screen(terminal.write, terminal.size),
        hides_thoughts=False,
        clock=lambda: now[0],
    )
    for word in ("One ", "two\n\n", "three "):
        view.say(word)
    assert len(terminal.writes) == 1
    now[0] = 1.0
    view.say("four")
    assert terminal.text == "One two\n\nthree four"
    assert len(terminal.writes) == 2


def test_an_answer_can_be_held_until_it_is_whole() -> None:
    terminal = Terminal(40)
    view = BufferedView(view_on(terminal))
    for word in ("One ", "two\n\n", "three "):
        view.say(word)
    assert terminal.writes == []
    view.end()
    assert terminal.text == "One two\n\nthree"


def test_a_terminal_without_line_drawing_gets_plain_signs() -> None:
    (row,) = Rows("ascii").of(Blocks().feed("```py\n")[0], 40, folds=False)
    assert row.text.isascii()


def test_lists_are_finished_item_by_item() -> None:
    finished = Blocks().feed("3. a\n4. b\n   c\n5. d\n")
    assert finished == [Prose("3. a", 3, is_next=False), Prose("4. b\n   c", 4, is_next=True)]
