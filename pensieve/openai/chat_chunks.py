"""Folds the message events of the answers to one prompt into chat chunks and their completion.

However the events cut a text, the joined chunks are the same, and the completion is what they add
up to. Most requests want one answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pensieve.api.messages.events import MessageEvent, MessageStart
from pensieve.api.messages.message import DeltaUsage
from pensieve.openai.chat_choice import ChoiceFold
from pensieve.openai.chat_completion import (
    ChatChunk,
    ChatChunkWithUsage,
    ChatCompletion,
    ChunkChoice,
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
)


@dataclass(frozen=True, slots=True)
class ChatAnswerOptions:
    created: int  # Unix seconds
    custom_tools: frozenset[str] = frozenset()
    includes_usage: bool = False  # in a stream
    service_tier: str | None = None
    choices: int = 1


class ChatFold:
    """Owns the answers while their message events arrive."""

    def __init__(self, options: ChatAnswerOptions) -> None:
        self._options = options
        self._start: MessageStart | None = None  # of the answer that began first
        self._choices = [ChoiceFold(at, options.custom_tools) for at in range(options.choices)]

    def feed(self, events: Iterable[MessageEvent], choice: int = 0) -> list[ChatChunk]:
        return [chunk for event in events for chunk in self._feed(event, choice)]

    @property
    def is_ended(self) -> bool:
        return len(self._usages) == len(self._choices)

    @property
    def completion(self) -> ChatCompletion:
        """Return the whole completion. Requires all events."""
        return ChatCompletion(
            id=self._id,
            created=self._options.created,
            model=self._model,
            choices=tuple(choice.whole for choice in self._choices),
            usage=usage_of(self._usages),
            service_tier=self._options.service_tier,
        )

    def _feed(self, event: MessageEvent, choice: int) -> list[ChatChunk]:
        if isinstance(event, MessageStart) and self._start is None:
            self._start = event
        was_ended = self.is_ended
        chunks = [self._of(part) for part in self._choices[choice].feed(event)]
        is_last = self.is_ended and not was_ended
        return [*chunks, self._of()] if is_last and self._options.includes_usage else chunks

    def _of(self, *choices: ChunkChoice) -> ChatChunk:
        chunk = ChatChunk(
            id=self._id,
            created=self._options.created,
            model=self._model,
            choices=choices,
            service_tier=self._options.service_tier,
        )
        if not self._options.includes_usage:
            return chunk
        usage = None if choices else usage_of(self._usages)
        return ChatChunkWithUsage(**dict(chunk), usage=usage)

    @property
    def _usages(self) -> list[DeltaUsage]:
        """Those of the answers that have ended."""
        return [choice.usage for choice in self._choices if choice.usage is not None]

    @property
    def _id(self) -> str:
        assert self._start is not None
        return self._start.message.id.replace("msg_", "chatcmpl-", 1)

    @property
    def _model(self) -> str:
        assert self._start is not None
        return self._start.message.model


def usage_of(usages: Sequence[DeltaUsage]) -> CompletionUsage:
    """Return the usage of answers to one prompt, which counts once: as it was for the first."""
    first = min(usages, key=lambda usage: usage.cache_read_input_tokens)
    prompt = first.input_tokens + first.cache_creation_input_tokens + first.cache_read_input_tokens
    output = sum(usage.output_tokens for usage in usages)
    thinking = sum(usage.output_tokens_details.thinking_tokens for usage in usages)
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=first.cache_read_input_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=thinking),
    )
