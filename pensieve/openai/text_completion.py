"""`POST /v1/completions`: its body, its answer, and the fold of message events into the latter."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import ApiModel
from pensieve.api.messages.events import (
    ContentBlockDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    ScoredTextDelta,
    TextDelta,
)
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.openai.chat_choice import FINISH_REASONS
from pensieve.openai.chat_chunks import usage_of
from pensieve.openai.chat_completion import CompletionUsage, FinishReason
from pensieve.openai.generation_fields import GenerationFields, TokenLimit, check_supported

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_TEXT_LOGPROBS = 5  # OpenAI's


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
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TEXT_LOGPROBS)] | None = None
    # Refused unless they ask for nothing more.
    best_of: StrictInt | None = None
    echo: StrictBool = False
    service_tier: JsonValue = None

    def check_supported(self) -> None:
        """Raises `InvalidRequestError` for what cannot be honoured."""
        check_supported({"best_of": self.best_of not in {None, self.n}, "echo": self.echo})


class TextLogprobLists(ApiModel):
    """The tokens of a text, by column."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]  # the token itself included
    text_offset: tuple[int, ...]  # of each token, in the answer


class TextChoice(ApiModel):
    """One answer, or a piece of it."""

    index: int = 0
    text: str
    logprobs: TextLogprobLists | None = None
    finish_reason: FinishReason | None


class TextCompletion(ApiModel):
    """The body of an answer, and one event of a stream: then the usage is only in the last one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int  # Unix seconds
    model: str
    choices: tuple[TextChoice, ...]
    usage: Annotated[CompletionUsage | None, Field(exclude_if=lambda usage: usage is None)] = None


class TextChoiceFold:
    """Owns one answer while its message events arrive."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._texts: list[str] = []
        self._length = 0
        self._logprobs: list[TextLogprob] | None = None  # None: its texts have none
        self.end: MessageDelta | None = None

    @property
    def whole(self) -> TextChoice:
        """Return the whole answer. Requires all its events."""
        assert self.end is not None
        text = "".join(self._texts)
        return self._choice(text, self._logprobs, FINISH_REASONS[self.end.delta.stop_reason])

    def feed(self, event: MessageEvent) -> list[TextChoice]:
        match event:
            case ContentBlockDelta(delta=TextDelta(text=text) as delta):
                return [self._add(text, delta)]
            case MessageDelta():
                self.end = event
                return [self._choice("", None, FINISH_REASONS[event.delta.stop_reason])]
            case _:
                return []

    def _add(self, text: str, delta: TextDelta) -> TextChoice:
        start = self._length
        self._texts.append(text)
        self._length += len(text)
        if not isinstance(delta, ScoredTextDelta):
            return self._choice(text, None)
        self._logprobs = self._logprobs or []
        self._logprobs += delta.logprobs
        return self._choice(text, delta.logprobs, start=start)

    def _choice(
        self,
        text: str,
        logprobs: Sequence[TextLogprob] | None,
        finish_reason: FinishReason | None = None,
        *,
        start: int = 0,
    ) -> TextChoice:
        return TextChoice(
            index=self._index,
            text=text,
            logprobs=None if logprobs is None else _lists(logprobs, start),
            finish_reason=finish_reason,
        )


def _lists(logprobs: Sequence[TextLogprob], start: int) -> TextLogprobLists:
    """start: where the text of the first token begins in the answer."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    offsets = [start]
    for each in logprobs:
        # A token within a character begins where that does.
        offsets.append(offsets[-1] + len(utf8.decode(bytes(each.bytes))))
    return TextLogprobLists(
        tokens=tuple(each.token for each in logprobs),
        token_logprobs=tuple(each.logprob for each in logprobs),
        top_logprobs=tuple(
            {one.token: one.logprob for one in (*each.top_logprobs, each)} for each in logprobs
        ),
        text_offset=tuple(offsets[:-1]),
    )


class TextFold:
    """Owns the answers to one prompt while their message events arrive."""

    def __init__(self, created: int, *, includes_usage: bool, choices: int = 1) -> None:
        self._created = created
        self._includes_usage = includes_usage
        self._start: MessageStart | None = None  # of the answer that began first
        self._choices = [TextChoiceFold(at) for at in range(choices)]

    def feed(self, events: Iterable[MessageEvent], choice: int = 0) -> list[TextCompletion]:
        return [piece for event in events for piece in self._feed(event, choice)]

    @property
    def is_ended(self) -> bool:
        return all(choice.end is not None for choice in self._choices)

    @property
    def completion(self) -> TextCompletion:
        """Return the whole completion. Requires all events."""
        return self._of(*(choice.whole for choice in self._choices), usage=self._usage)

    def _feed(self, event: MessageEvent, choice: int) -> list[TextCompletion]:
        if isinstance(event, MessageStart) and self._start is None:
            self._start = event
        was_ended = self.is_ended
        pieces = [self._of(part) for part in self._choices[choice].feed(event)]
        is_last = self.is_ended and not was_ended
        return (
            [*pieces, self._of(usage=self._usage)] if is_last and self._includes_usage else pieces
        )

    @property
    def _usage(self) -> CompletionUsage:
        return usage_of([choice.end.usage for choice in self._choices if choice.end is not None])

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
