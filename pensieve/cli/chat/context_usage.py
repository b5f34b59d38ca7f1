"""Counts how much of the model's context a conversation uses, and trims it to fit."""

from dataclasses import replace

from pensieve.cli.chat.receive import Answer
from pensieve.cli.client.connection import Server
from pensieve.cli.client.messages import Call, count_tokens
from pensieve.cli.ui.progress import counted
from pensieve.errors import PromptTooLongError, PromptUnprocessableError

# The fraction of the context that is reserved for the answer when a conversation is trimmed: 1/4.
ANSWER_DIVISOR = 4
NEARLY_FULL = 0.8


class ContextUsage:
    """Owns a conversation's counts: tokens of the last exchange, and totals."""

    def __init__(self) -> None:
        self._used = self._context_tokens = 0
        self._answers = self._output_tokens = 0
        self._seconds = 0.0
        self._last = ""

    def add(self, answer: Answer, context_tokens: int) -> None:
        """Count a complete answer. context_tokens: 0 if the server does not report it."""
        if answer.end is None:
            return
        self._used = answer.end.prompt_tokens + answer.end.output_tokens
        self._context_tokens = context_tokens
        self._answers += 1
        self._output_tokens += answer.end.output_tokens
        self._seconds += answer.timing.total_s
        self._last = str(answer.timing)

    def clear(self) -> None:
        """Reset the context; keep the totals."""
        self._used = 0

    def __str__(self) -> str:
        if not self._used or not self._context_tokens:
            return ""
        share = self._used / self._context_tokens
        usage = f"context {100 * share:.0f} % ({self._used} of {self._context_tokens} tokens)"
        return f"{usage}, /clear starts over" if share >= NEARLY_FULL else usage

    def summary(self) -> str:
        if not self._answers:
            return "No answers yet."
        answers, tokens = counted(self._answers, "answer"), counted(self._output_tokens, "token")
        total = f"{answers}, {tokens} in {self._seconds:.1f} s"
        return "\n".join(part for part in (total, f"last: {self._last}", str(self)) if part)


TooLongError = PromptTooLongError | PromptUnprocessableError


def explain(error: TooLongError, question: str) -> TooLongError:
    """Return the error of a question that alone is too long, with its fix."""
    if isinstance(error, PromptTooLongError):
        error.message = (
            f"The question has {error.prompt_tokens:,} tokens; the model's context is"
            f" {error.context_tokens:,}."
        )
    limit, _ = _limits(error, error.prompt_tokens)
    chars = len(question) * limit // max(1, error.prompt_tokens)
    error.hint = (
        f"Send about {chars:,} of its {len(question):,} characters:\n"
        f'  head -c {chars} FILE | pensieve chat "…"\n'
        "Or serve a model with a longer context here:\n  pensieve models"
    )
    return error


def without_oldest(server: Server, call: Call, error: TooLongError) -> Call:
    """Return `call` without as many oldest exchanges as needed. Costs a request per exchange.

    Raises `error` if even the question alone is too long.
    """
    limit, refused = _limits(error, call.max_tokens)
    turns = call.turns
    while len(turns) > 1:
        turns = turns[2:]
        shorter = replace(call, turns=turns)
        tokens = count_tokens(server, shorter)
        if tokens <= limit or (len(turns) == 1 and tokens < refused):
            return shorter
    raise error


def _limits(error: TooLongError, max_tokens: int) -> tuple[int, int]:
    """Return the length to trim a prompt to, and the one from which it is certainly refused."""
    if isinstance(error, PromptUnprocessableError):
        return error.done_tokens, error.prompt_tokens
    context_tokens = error.context_tokens
    return context_tokens - min(max_tokens, context_tokens // ANSWER_DIVISOR), context_tokens
