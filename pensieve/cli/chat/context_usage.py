"""How much of the model's context a conversation takes, and how to make it take less."""

from dataclasses import replace

from pensieve.cli.chat.receive import Answer
from pensieve.cli.client.connection import Server
from pensieve.cli.client.messages import Call, count_tokens
from pensieve.cli.ui.progress import counted
from pensieve.errors import PromptTooLongError

# Of the context, what is kept free for the answer when room is made.
ROOM = 4
NEARLY_FULL = 0.8


class ContextUsage:
    """Owns the counts of a conversation: what the last answer left in the context, and totals since it began."""

    def __init__(self) -> None:
        self._used = self._context_tokens = 0
        self._answers = self._output_tokens = 0
        self._seconds = 0.0
        self._last = ""

    def add(self, answer: Answer, context_tokens: int) -> None:
        """Count an answer that is whole. context_tokens: 0 where the server does not say."""
        if answer.ended is None:
            return
        self._used = answer.ended.prompt_tokens + answer.ended.output_tokens
        self._context_tokens = context_tokens
        self._answers += 1
        self._output_tokens += answer.ended.output_tokens
        self._seconds += answer.figures.total_s
        self._last = str(answer.figures)

    def clear(self) -> None:
        """Nothing is in the context any more; the totals stay."""
        self._used = 0

    def __str__(self) -> str:
        """Tokens used, of how many; empty where that is not known."""
        if not self._used or not self._context_tokens:
            return ""
        share = self._used / self._context_tokens
        said = f"context {100 * share:.0f} % ({self._used} of {self._context_tokens} tokens)"
        return f"{said}, /clear begins anew" if share >= NEARLY_FULL else said

    def told(self) -> str:
        """The whole conversation, as /stats shows it."""
        if not self._answers:
            return "Nothing was answered yet."
        answers, tokens = counted(self._answers, "answer"), counted(self._output_tokens, "token")
        total = f"{answers}, {tokens} in {self._seconds:.1f} s"
        return "\n".join(part for part in (total, f"last: {self._last}", str(self)) if part)


def without_oldest(server: Server, call: Call, error: PromptTooLongError) -> Call:
    """`call` without as many of its first exchanges as must go. Raises `error` where even the question is too long."""
    limit = error.context_tokens - min(call.max_tokens, error.context_tokens // ROOM)
    turns = call.turns
    while len(turns) > 1:
        turns = turns[2:]
        shorter = replace(call, turns=turns)
        tokens = count_tokens(server, shorter)
        if tokens <= limit or (len(turns) == 1 and tokens < error.context_tokens):
            return shorter
    raise error
