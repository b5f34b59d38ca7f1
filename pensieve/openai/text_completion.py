"""`POST /v1/completions`: its body, its answer, and the fold of message events into the latter."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import ApiModel
from pensieve.api.messages.events import (
    ContentBlockDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    TextDelta,
)
from pensieve.openai.chat_chunks import FINISH_REASONS, usage_of
from pensieve.openai.chat_completion import CompletionUsage, FinishReason
from pensieve.openai.generation_fields import GenerationFields, TokenLimit

DEFAULT_MAX_TOKENS = 16  # OpenAI's


def _one_text(prompt: object) -> object:
    match prompt:
        case [str(text)]:
            return text
        case _:
            return prompt


class TextCompletionRequest(GenerationFields):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[str, BeforeValidator(_one_text, json_schema_input_type=str | tuple[str])]
    suffix: str | None = None
    max_tokens: TokenLimit = DEFAULT_MAX_TOKENS
    # Refused unless they ask for nothing.
    best_of: StrictInt = 1
    echo: StrictBool = False
    logprobs: StrictInt = 0
    service_tier: JsonValue = None

    def check_supported(self) -> None:
        """Raises `InvalidRequestError` for what cannot be honoured."""
        self.check(
            {"best_of": self.best_of != 1, "echo": self.echo, "logprobs": self.logprobs != 0}
        )


class TextChoice(ApiModel):
    """One answer, or a piece of it."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None


class TextCompletion(ApiModel):
    """The body of an answer, and one event of a stream: then the usage is only in the last one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int  # Unix seconds
    model: str
    choices: tuple[TextChoice, ...]
    usage: Annotated[CompletionUsage | None, Field(exclude_if=lambda usage: usage is None)] = None


class TextFold:
    """Owns one answer while its message events arrive."""

    def __init__(self, created: int, *, includes_usage: bool) -> None:
        self._created = created
        self._includes_usage = includes_usage
        self._start: MessageStart | None = None
        self._end: MessageDelta | None = None
        self._texts: list[str] = []

    def feed(self, events: Iterable[MessageEvent]) -> list[TextCompletion]:
        return [piece for event in events for piece in self._feed(event)]

    @property
    def completion(self) -> TextCompletion:
        """Return the whole answer. Requires all its events."""
        assert self._end is not None
        return self._of(
            TextChoice(text="".join(self._texts), finish_reason=self._reason(self._end)),
            usage=usage_of(self._end.usage),
        )

    def _feed(self, event: MessageEvent) -> list[TextCompletion]:
        match event:
            case MessageStart():
                self._start = event
                return []
            case ContentBlockDelta(delta=TextDelta(text=text)):
                self._texts.append(text)
                return [self._of(TextChoice(text=text, finish_reason=None))]
            case MessageDelta():
                self._end = event
                last = self._of(TextChoice(text="", finish_reason=self._reason(event)))
                usage = self._of(usage=usage_of(event.usage))
                return [last, usage] if self._includes_usage else [last]
            case _:
                return []

    def _reason(self, end: MessageDelta) -> FinishReason:
        return FINISH_REASONS[end.delta.stop_reason]

    def _of(self, *choices: TextChoice, usage: CompletionUsage | None = None) -> TextCompletion:
        assert self._start is not None
        message = self._start.message
        return TextCompletion(
            id=message.id.replace("msg_", "cmpl-", 1),
            created=self._created,
            model=message.model,
            choices=choices,
            usage=usage,
        )
