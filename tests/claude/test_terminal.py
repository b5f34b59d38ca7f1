"""Claude Code on a screen, as a person sees it: what it asks, and that a typed word is answered."""

import shlex

import pytest

from tests.claude.driving import PENSIEVE, ClaudeCode, Terminal
from tests.claude.taught import REPLY, WORD
from tests.e2e.installation import Installation

TRUSTED = "Yes, I trust this folder"
PROMPT = "? for shortcuts"
CURSOR = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
KEY_QUESTION = "Do you want to use this API key?"


def choose(terminal: Terminal, answer: str, key: str) -> None:
    """Take an answer of a question; `key` moves the cursor to it, if it is not there."""

    def next_key(screen: str) -> str | None:
        if f" {answer}" not in screen:
            return None
        return "Enter" if f"{CURSOR} {answer}" in screen else key

    terminal.seen(f" {answer}")
    terminal.steer(next_key)


def talk(terminal: Terminal) -> None:
    terminal.press_until(WORD, lambda screen: f"{CURSOR} {WORD}" in screen.replace("\xa0", " "))
    terminal.press_until("Enter", lambda screen: REPLY in screen)


def test_pensieve_claude_asks_nothing_but_whether_the_folder_is_trusted(
    claude: ClaudeCode, taught: Installation
) -> None:
    with claude.terminal(taught, shlex.join([*PENSIEVE, "claude"])) as terminal:
        choose(terminal, TRUSTED, "Down")
        screen = terminal.seen(PROMPT)
        assert KEY_QUESTION not in screen
        assert "auto mode" not in screen.lower()
        talk(terminal)


@pytest.mark.parametrize("answer", ["No (recommended)", "Yes"])
def test_with_pensieve_env_either_answer_to_the_question_about_the_key_works(
    answer: str, claude: ClaudeCode, taught: Installation
) -> None:
    script = f'eval "$({shlex.join([*PENSIEVE, "env"])})"; claude'
    with claude.terminal(taught, script) as terminal:
        choose(terminal, TRUSTED, "Down")
        terminal.seen(KEY_QUESTION)
        choose(terminal, answer, "Up")
        terminal.seen("auto mode on")
        talk(terminal)
