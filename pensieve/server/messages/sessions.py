"""Sessions of Claude Code, each agent's its own: whether every prompt goes on from the session's last one.

One that does not is processed anew from where it parts. That is told in the log and counted, since nothing else shows it but
the time that it takes.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from pensieve.api.messages.request import Conversation
from pensieve.prompt.cache_divergence import LastPrompt, divergence
from pensieve.prompt.render import Prompt

_log = logging.getLogger("pensieve.server")

SESSION_HEADER = "x-claude-code-session-id"
AGENT_HEADER = "x-claude-code-agent-id"
# About as many bytes, in a language of Latin letters.
MAX_LETTERS = 32_000_000


class Sessions:
    """Owns the last prompt of each session, the least recently used going first. Used on the event loop alone.

    neutralize: the tokenizer's, with which the prompts are written.
    """

    def __init__(self, neutralize: Callable[[str], str], max_letters: int = MAX_LETTERS) -> None:
        self._neutralize = neutralize
        self._max_letters = max_letters
        self._letters = 0
        self._last: OrderedDict[tuple[str, str], LastPrompt] = OrderedDict()
        self.diverged = 0

    def note(self, headers: Mapping[str, str], conversation: Conversation, prompt: Prompt) -> None:
        """Compare the prompt with the session's last one, and keep it. Requests without a session are passed over."""
        if SESSION_HEADER not in headers:
            return
        key = (headers[SESSION_HEADER], headers.get(AGENT_HEADER, ""))
        if (last := self._last.pop(key, None)) is not None:
            self._letters -= len(last.text)
            if found := divergence(last, prompt, conversation, self._neutralize):
                self.diverged += 1
                _log.info(
                    "prompt diverged from the session's last one at token %d of %d, in %s",
                    found.tokens,
                    found.last_tokens,
                    found.place,
                )
        self._keep(key, LastPrompt.of(prompt))

    def _keep(self, key: tuple[str, str], last: LastPrompt) -> None:
        self._last[key] = last
        self._letters += len(last.text)
        while self._letters > self._max_letters:
            self._letters -= len(self._last.popitem(last=False)[1].text)
