"""Claude Code on a screen, as a person sees it: what it asks, and that a typed word is answered."""

import shlex

import pytest

from tests.claude.driving import PENSIEVE, ClaudeCode, Terminal
from tests.claude.taught import REPLY, WORD
from tests.e2e.conftest import Journey

TRUST = "Yes, I trust this folder"
PROMPT = "? for shortcuts"
KEY_QUESTION = "Do you want to use this API key?"


def trust(terminal: Terminal) -> None:
    """Claude Code's own question about the folder; "No" is what it proposes."""
    terminal.seen(TRUST)
    terminal.press("Down", "Enter")


def talk(terminal: Terminal) -> None:
    terminal.press(WORD)
    terminal.seen(f" {WORD}")
    terminal.press("Enter")
    terminal.seen(REPLY)


def test_pensieve_claude_asks_nothing_but_whether_the_folder_is_trusted(
    claude: ClaudeCode, taught: Journey
) -> None:
    with claude.terminal(taught, shlex.join([*PENSIEVE, "claude"])) as terminal:
        trust(terminal)
        screen = terminal.seen(PROMPT)
        assert KEY_QUESTION not in screen
        assert "auto mode" not in screen.lower()
        talk(terminal)


@pytest.mark.parametrize("answer", [["Enter"], ["Up", "Enter"]], ids=["no", "yes"])
def test_with_pensieve_env_either_answer_to_the_question_about_the_key_works(
    answer: list[str], claude: ClaudeCode, taught: Journey
) -> None:
    script = f'eval "$({shlex.join([*PENSIEVE, "env"])})"; claude'
    with claude.terminal(taught, script) as terminal:
        trust(terminal)
        terminal.seen(KEY_QUESTION)
        terminal.press(*answer)
        terminal.seen("auto mode on")
        talk(terminal)
