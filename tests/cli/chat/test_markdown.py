"""Drawn markdown: independent of chunks, never above the terminal, without a model's escapes."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.chat.drawing import Screen
from pensieve.cli.chat.view import BufferedView, DrawnView
from tests.cli.terminal import Terminal

ANSWER = """\
# A comparison

Here is a **bold claim** with `inline code`, *emphasis*, and a \
[link](https://example.org/a) that has to be wrapped, 日本語 🙂 too.
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
        Screen(terminal.write, terminal.size),
        **{"hides_thoughts": False, **changes},
        clock=iter(range(10**9)).__next__,
    )


def draw_all(
    text: str, *, pieces: list[str] | None = None, columns: int = 40, lines: int = 24
) -> str:
    terminal = Terminal(columns, lines)
    view = view_on(terminal)
    for piece in pieces or [text]:
        view.add_text(piece)
    view.end()
    return terminal.text


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[a:b] for a, b in pairwise(edges)]


def test_full_answer_is_drawn_as_expected() -> None:
    assert (
        draw_all(ANSWER, columns=60)
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
def test_final_screen_does_not_depend_on_chunks_or_height(
    text: str, places: list[int], lines: int
) -> None:
    whole = draw_all(text)
    assert draw_all(text, pieces=cut(text, places), lines=lines) == whole


@pytest.mark.parametrize("lines", [4, 10, 50])
def test_chunked_answer_is_drawn_like_a_whole_one(lines: int) -> None:
    words = re.split(r"(?<=\s)", ANSWER)
    assert draw_all(ANSWER, pieces=words, lines=lines) == draw_all(ANSWER)
    assert draw_all(ANSWER, pieces=list(ANSWER), lines=lines) == draw_all(ANSWER)


def test_table_never_shows_its_source() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for character in "Look:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |":
        view.add_text(character)
        assert "|" not in terminal.text
    assert " 1  2" in terminal.text


def test_open_marks_are_drawn_closed() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for character in "This is **bold** and `code` here":
        view.add_text(character)
        assert not re.search(r"\*\w|`\w", terminal.text), terminal.text


def test_finished_rows_are_written_once() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    view.add_text("The first paragraph.\n\n```\nthe_code()\n")
    before = len(terminal.writes)
    for word in ["and(", "more)\n", "```\n\n", "Then ", "the ", "rest."]:
        view.add_text(word)
    view.end()
    later = "".join(terminal.writes[before:])
    assert "first" not in later
    assert "the_code" not in later
    assert "Then the rest." in terminal.text


def test_only_rows_that_differ_are_written_again() -> None:
    terminal = Terminal(20)
    view = view_on(terminal)
    view.add_text("one two three four five six seven eight nine")
    view.add_text(" ten")
    assert "one" not in terminal.writes[-1]
    assert "ten" in terminal.writes[-1]


def test_each_drawing_is_one_write_between_the_marks_of_an_update() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for word in re.split(r"(?<=\s)", ANSWER):
        view.add_text(word)
    view.end()
    for written in terminal.writes:
        assert re.fullmatch(r"\x1b\[\?2026h.*\x1b\[\?2026l", written, re.DOTALL)
        assert written.count("\x1b[?2026") == 2


def test_row_that_becomes_full_keeps_its_last_character() -> None:
    terminal = Terminal(columns=20)
    view = view_on(terminal)
    for piece in ("twenty letters in i", "t", " and", " more"):
        view.add_text(piece)
    view.end()
    assert terminal.text == "twenty letters in it\nand more"


def test_cursor_never_moves_above_the_terminal() -> None:
    """The end of a table taller than the terminal is visible as it grows; all of it at last."""
    rows = "".join(f"| {n} | x |\n" for n in range(30))
    terminal = Terminal(40, 8)
    view = view_on(terminal)
    for line in ["Before.\n\n", "| n | x |\n|---|---|\n", *rows.splitlines(keepends=True)]:
        view.add_text(line)
        assert len(terminal.rows) <= 8 + 2
    view.end()
    numbers = [int(row.split()[0]) for row in terminal.rows if re.match(r" \d", row)]
    assert numbers == list(range(30))


def test_resized_terminal_shows_each_word_once() -> None:
    words = [f"word{n} " for n in range(60)]
    terminal = Terminal(60, 24)
    view = view_on(terminal)
    for at, word in enumerate(words):
        if at in {20, 40}:
            terminal.resize({20: 31, 40: 70}[at], 24)
        view.add_text(word)
    view.end()
    assert terminal.text.split() == "".join(words).split()


def test_code_line_is_wrapped_by_the_terminal_and_can_be_copied() -> None:
    terminal = Terminal(20)
    view = view_on(terminal)
    long = "x = '" + "y" * 50 + "'"
    view.add_text(f"```\n{long[:30]}")
    view.add_text(f"{long[30:]}\n```")
    view.end()
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", terminal.writes[1])
    assert long in plain
    assert terminal.text.replace("\n", "").strip("─") == long


def test_code_is_coloured_and_text_is_not() -> None:
    terminal = Terminal(60)
    view = view_on(terminal)
    view.add_text("def here\n\n```python\ndef there(): pass\n```\n")
    written = "".join(terminal.writes)
    assert re.search(r"\x1b\[35mdef\x1b\[0m", written)
    assert "def here" in written


CODE = {
    "python": "@dec\nclass A(B):\n    '''doc'''\n    def f(self, x=1.5):\n"
    "        return not x and f'a{x!r}'\nraise None ?? $",
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n",
    "html": "<!DOCTYPE html><a href='x'>&amp;</a><script>var x=/r/g</script>",
    "console": "$ ls | grep x # c\nout",
    "pytb": 'Traceback (most recent call last):\n  File "x", line 1, in y\n    z\nValueError: d',
    "json": '{"a": [1, true, null, "x"]}',
    "markdown": "# h\n**b** *i* [l](u)\n`c`\n> q",
}
# Bold, dim, italic, underlined, crossed out; red, green, magenta and cyan of the palette. No
# background, no yellow, white or black.
SEEN_ON_ANY_GROUND = {"0", "1", "2", "3", "4", "9", "31", "32", "35", "36"}


def test_colours_are_legible_on_light_and_dark_backgrounds() -> None:
    fences = "".join(f"\n```{language}\n{code}\n```\n" for language, code in CODE.items())
    inline = (
        "\n#### h4\n~~gone~~ <http://a.b> ![i](u) <b>html</b>\n\n<div>block</div>\n\n    indented\n"
    )
    terminal = Terminal()
    view = view_on(terminal)
    view.add_thought("A thought.")
    view.add_text(ANSWER + inline + fences)
    view.end()
    codes = re.findall(r"\x1b\[([\d;]*)m", "".join(terminal.writes))
    assert {"35", "32"} < {each for code in codes for each in code.split(";")} <= SEEN_ON_ANY_GROUND


def test_multiline_string_stays_highlighted() -> None:
    terminal = Terminal()
    view = view_on(terminal)
    for line in ('```python\na = """\n', "for\n", '"""\n'):
        view.add_text(line)
    assert "\x1b[32mfor\x1b[0m" in "".join(terminal.writes)


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
def test_escapes_in_an_answer_do_not_reach_the_terminal(text: str) -> None:
    """The tests' terminal refuses every sequence that the chat does not use."""
    terminal = Terminal(40)
    view = view_on(terminal)
    view.add_thought(text)
    for character in text:
        view.add_text(character)
    view.end()
    allowed = r"\x1b\[(1A|[\d;]*m|2K|\?2026[hl])|\n|\r(?=\x1b)"
    for written in terminal.writes:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", re.sub(allowed, "", written)), written


@given(st.text(st.sampled_from("\x1b[]0;2Jm\x07\x9b\x9c&#27;%1b<>`|-\n http:/()")), st.booleans())
@settings(max_examples=150)
def test_no_text_writes_an_escape_sequence(text: str, is_code: bool) -> None:
    draw_all(f"```\n{text}" if is_code else text)


def test_link_shows_its_target() -> None:
    assert draw_all("[bank](http://evil.example)") == "bank (http://evil.example)"
    assert draw_all("<http://plain.example>") == "http://plain.example"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("<div>kept</div>", "<div>kept</div>"),
        ("[a]: http://b", "[a]: http://b"),
        ("Roses\nViolets", "Roses\nViolets"),
        ("9. nine\n10. ten", " 9. nine\n10. ten"),
        ("1. a\n1. b\n1. c", "1. a\n2. b\n3. c"),
        ("- a\n\n- b\n\n  c", " • a\n • b\n   c"),
        ("a :smile: [bold]b[/bold]", "a :smile: [bold]b[/bold]"),
    ],
)
def test_html_and_references_are_shown_as_text(text: str, printed: str) -> None:
    assert draw_all(text) == printed


def test_a_thought_is_dim_and_above_the_answer() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    for piece in ["", "First\n\nI ", "wonder ", "about it."]:
        view.add_thought(piece)
    assert terminal.text == "First\nI wonder about it."
    view.add_text("So")
    view.end()
    assert terminal.text == "First\nI wonder about it.\n\nSo"
    assert "\x1b[2;3mFirst\x1b[0m" in "".join(terminal.writes)


def test_hidden_thought_is_shown_as_a_transient_note() -> None:
    terminal = Terminal(40)
    view = view_on(terminal, hides_thoughts=True)
    view.add_thought("")
    view.add_thought("secret")
    assert terminal.text == "thinking …"
    view.add_text("So")
    view.end()
    assert terminal.text == "So"
    assert "secret" not in "".join(terminal.writes)


def test_waiting_note_is_shown_until_text_arrives() -> None:
    terminal = Terminal(40)
    view = view_on(terminal)
    view.show_waiting(15.2)
    assert terminal.text == "waiting for the answer, 15 s …"
    view.add_text("Paris")
    assert terminal.text == "Paris"


def test_rate_limited_drawing_drops_no_piece() -> None:
    terminal = Terminal(40)
    now = [0.0]
    view = DrawnView(
        Screen(terminal.write, terminal.size),
        hides_thoughts=False,
        clock=lambda: now[0],
    )
    for word in ("One ", "two\n\n", "three "):
        view.add_text(word)
    assert len(terminal.writes) == 1
    now[0] = 1.0
    view.add_text("four")
    assert terminal.text == "One two\n\nthree four"
    assert len(terminal.writes) == 2


def test_buffered_view_shows_the_complete_answer() -> None:
    terminal = Terminal(40)
    view = BufferedView(view_on(terminal))
    for word in ("One ", "two\n\n", "three "):
        view.add_text(word)
    assert terminal.writes == []
    view.end()
    assert terminal.text == "One two\n\nthree"


def test_ascii_terminal_gets_plain_characters() -> None:
    terminal = Terminal(40)
    view = DrawnView(Screen(terminal.write, terminal.size, "ascii"), hides_thoughts=False)
    view.show_waiting(2.0)
    view.add_text("- a\n\n```py\n1\n```\n\n> b\n\n| c | d |\n|---|---|\n| 1 | 2 |\n\n---\n")
    view.end()
    assert "".join(terminal.writes).isascii()
    assert "* a\n\n-- py -" in terminal.text


def test_lines_of_code_scroll_away_as_they_come() -> None:
    terminal = Terminal(40, 20)
    view = view_on(terminal)
    lines = [f"line{n} = {n}" for n in range(80)]
    view.add_text("Look:\n\n```python\n")
    for count, line in enumerate(lines, 1):
        view.add_text(line[:5])
        view.add_text(f"{line[5:]}\n")
        assert terminal.rows[3 : 3 + count] == lines[:count]
    view.add_text("```\n")
    view.end()
    assert terminal.rows[3:83] == lines
    written = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", "".join(terminal.writes))
    assert [written.count(f"{line}\n") for line in lines] == [1] * 80


@pytest.mark.parametrize("lines", [1, 2, 8])
def test_list_higher_than_the_terminal_is_whole_in_the_end(lines: int) -> None:
    terminal = Terminal(40, lines)
    view = view_on(terminal)
    view.add_text("Before.\n\n")
    for n in range(1, 31):
        view.add_text(f"{n}. item")
        view.add_text(f" {n}\n")
        assert terminal.rows[-1].endswith(f"{n}. item {n}")
        assert len(terminal.rows) <= lines + 2
    view.end()
    items = [row.strip() for row in terminal.rows[2:]]
    assert items == [*(f"{n}. item {n}" for n in range(1, 31)), ""]


def test_long_word_in_a_narrow_table_is_whole() -> None:
    shown = draw_all("| a | b |\n|---|---|\n| incomprehensibilities | antidisestablishment |\n")
    narrow = draw_all("| a |\n|---|\n| incomprehensibilities |\n", columns=20)
    assert "antidisestablishm" in shown
    assert "…" not in shown + narrow


@pytest.mark.parametrize("columns", [1, 2, 5, 12])
def test_narrow_terminal_shows_all_of_it(columns: int) -> None:
    shown = draw_all(f"{ANSWER}\n\n```\n日本語 code\n```\n", columns=columns)
    for word in ("emphasis", "nested", "phi-3-mini", "return f", "quoted", "本語 code"):
        letters = word.replace(" ", "")
        assert letters in re.sub(r"\s", "", shown)
