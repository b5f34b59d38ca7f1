"""What the endpoints have in common: answer options, and the text of completions' streams."""

from collections.abc import Iterable, Sequence

from pensieve.api.base import ApiModel
from pensieve.api.messages.events import MessageEvent, MessageStop
from pensieve.openai.generation_fields import GenerationFields
from pensieve.server.messages.completion import AnswerOptions, SamplingChoice
from pensieve.server.openai.wire import DONE, data_event


def answer_options(call: GenerationFields, max_tokens: int | None) -> AnswerOptions:
    return AnswerOptions(
        call.model,
        max_tokens,
        call.stop,
        SamplingChoice(
            temperature=call.temperature,
            top_p=call.top_p,
            top_k=None if call.top_k is None else max(call.top_k, 0),
            min_p=call.min_p,
            repetition_penalty=call.repetition_penalty,
            seed=call.seed,
        ),
    )


def stream_text(events: Sequence[MessageEvent], chunks: Iterable[ApiModel]) -> str:
    """Return the chunks of the events as server-sent events, and the end of the stream."""
    text = "".join(map(data_event, chunks))
    is_end = any(isinstance(event, MessageStop) for event in events)
    return text + DONE if is_end else text
