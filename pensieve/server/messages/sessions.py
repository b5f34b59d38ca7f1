"""The last prompt of each session.

The endpoints report every prompt here. One that does not extend the last prompt of its
session and agent must be processed again from the point of divergence, which shows only in its
latency; so it is logged and counted.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from pensieve.api.messages.request import Conversation
from pensieve.prompt.cache_divergence import LastPrompt, divergence
from pensieve.prompt.render import Prompt

_log = logging.getLogger("pensieve.server")

# About as many bytes of memory for text in Latin script.
MAX_CHARS = 32_000_000


class Session(NamedTuple):
    name: str  # the client's
    part: str  # those of one session have prompts of their own: agents, titles
    owner: str = ""  # the name of its key


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

    def note(self, session: Session, conversation: Conversation, prompt: Prompt) -> int | None:
        """Compare the prompt with the session's last one, and store it.

        Return the token at which it diverged; None if it did not.
        """
        found = None
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
        return found.tokens if found else None

    def _store(self, session: Session, last: LastPrompt) -> None:
        self._last[session] = last
        self._chars += len(last.text)
        while self._chars > self._max_chars:
            self._chars -= len(self._last.popitem(last=False)[1].text)
