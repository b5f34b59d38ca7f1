"""Claude Code in a terminal: its first questions, and the answer to a typed prompt."""

import shlex

import pytest

from tests.claude.claude_code import PENSIEVE, ClaudeCode, Terminal
from tests.claude.trained import CUE, REPLY
from tests.e2e.installation import Installation

TRUSTED = "Yes, I trust this folder"
PROMPT = "? for shortcuts"
CURSOR = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
KEY_QUESTION = "Do you want to use this API key?"


def choose(terminal: Terminal, answer: str, key: str) -> None:
    """Choose an answer of a question; `key` moves the cursor towards it."""

    def next_key(screen: str) -> str | None:
        if f" {answer}" not in screen:
            return None
        return "Enter" if f"{CURSOR} {answer}" in screen else key

    terminal.wait_for(f" {answer}")
    terminal.steer(next_key)


def talk(terminal: Terminal) -> None:
    terminal.press_until(CUE, lambda screen: f"{CURSOR} {CUE}" in screen.replace("\xa0", " "))
    terminal.press_until("Enter", lambda screen: REPLY in screen)


def test_pensieve_claude_asks_only_whether_the_folder_is_trusted(
    claude: ClaudeCode, trained: Installation
) -> None:
    with claude.terminal(trained, shlex.join([*PENSIEVE, "claude"])) as terminal:
        choose(terminal, TRUSTED, "Down")
        screen = terminal.wait_for(PROMPT)
        assert KEY_QUESTION not in screen
        assert "auto mode" not in screen.lower()
        talk(terminal)


@pytest.mark.parametrize("answer", ["No (recommended)", "Yes"])
def test_with_pensieve_env_both_answers_about_the_key_work(
    answer: str, claude: ClaudeCode, trained: Installation
) -> None:
    script = f'eval "$({shlex.join([*PENSIEVE, "env"])})"; claude'
    with claude.terminal(trained, script) as terminal:
        choose(terminal, TRUSTED, "Down")
        terminal.wait_for(KEY_QUESTION)
        choose(terminal, answer, "Up")
        terminal.wait_for("auto mode on")
        talk(terminal)
