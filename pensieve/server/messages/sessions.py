"""What the headers of Claude Code mean: its sessions, agents and side requests.

The endpoints report every prompt here. One that does not extend the last prompt of its
session and agent must be processed again from the point of divergence, which shows only in its
latency; so it is logged and counted.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from pensieve.api.messages.request import Conversation
from pensieve.api.messages.tools import ServerTool
from pensieve.engine.generation import Priority
from pensieve.prompt.cache_divergence import LastPrompt, divergence
from pensieve.prompt.render import Prompt

_log = logging.getLogger("pensieve.server")

SESSION_HEADER = "x-claude-code-session-id"
AGENT_HEADER = "x-claude-code-agent-id"
_AGENT_HEADERS = (AGENT_HEADER, "x-claude-code-parent-agent-id")
Session = tuple[str, ...]
# About as many bytes of memory for text in Latin script.
MAX_CHARS = 32_000_000


def is_claude_code(headers: Mapping[str, str]) -> bool:
    """Return whether the client is Claude Code.

    After an `error` event in mid-stream it retries once without streaming, with a timeout of 300 s;
    after a connection that ended it retries the stream up to ten times (2.1.330).
    """
    return headers.get("user-agent", "").startswith("claude-cli/")


def priority_of(headers: Mapping[str, str], call: Conversation) -> Priority:
    """Return the priority of a call.

    Claude Code marks its sub-agents by a header; its calls without tools are titles and summaries.
    """
    if any(name in headers for name in _AGENT_HEADERS):
        return "agent"
    has_own_tools = any(not isinstance(tool, ServerTool) for tool in call.tools)
    if SESSION_HEADER in headers and not has_own_tools:
        return "side"
    return "main"


def session_of(headers: Mapping[str, str]) -> Session | None:
    """Return the session and agent of Claude Code; None for other clients."""
    if SESSION_HEADER not in headers:
        return None
    return headers[SESSION_HEADER], headers.get(AGENT_HEADER, "")


class Sessions:
    """Owns the last prompt of each session.

    The least recently used is evicted first. Used on the event loop alone.
    """

    def __init__(self, neutralize: Callable[[str], str], max_chars: int = MAX_CHARS) -> None:
        self._neutralize = neutralize
        self._max_chars = max_chars
        self._chars = 0
        self._last: OrderedDict[Session, LastPrompt] = OrderedDict()
        self.diverged = 0

    def note(self, session: Session | None, conversation: Conversation, prompt: Prompt) -> None:
        """Compare the prompt with the session's last one, and store it.

        Requests without a session are ignored.
        """
        if session is None:
            return
        if (last := self._last.pop(session, None)) is not None:
            self._chars -= len(last.text)
            if found := divergence(last, prompt, conversation, self._neutralize):
                self.diverged += 1
                _log.info(
                    "prompt diverged from the session's last one at token %d of %d, in %s",
                    found.tokens,
                    found.last_tokens,
                    found.path,
                )
        self._store(session, LastPrompt.of(prompt))

    def _store(self, session: Session, last: LastPrompt) -> None:
        self._last[session] = last
        self._chars += len(last.text)
        while self._chars > self._max_chars:
            self._chars -= len(self._last.popitem(last=False)[1].text)
