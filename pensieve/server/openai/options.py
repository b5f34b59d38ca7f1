"""What the endpoints have in common: answer options, and the text of completions' streams."""

from collections.abc import Iterable

from pensieve.api.base import ApiModel, data_event
from pensieve.openai.generation_fields import GenerationFields
from pensieve.server.messages.completion import AnswerOptions, SamplingChoice
from pensieve.server.openai.wire import DONE


def answer_options(
    call: GenerationFields,
    max_tokens: int | None,
    top_logprobs: int | None = None,
    *,
    client: str,
) -> AnswerOptions:
    """top_logprobs: None for no logprobs at all. client: the name of the key."""
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
            frequency_penalty=call.frequency_penalty,
            presence_penalty=call.presence_penalty,
            logit_bias=tuple((int(token), bias) for token, bias in call.logit_bias.items()),
        ),
        top_logprobs=top_logprobs,
        choices=call.n,
        client=client,
    )


def stream_text(chunks: Iterable[ApiModel], *, is_end: bool) -> str:
    """Return the chunks as server-sent events, and the end of the stream."""
    text = "".join(map(data_event, chunks))
    return text + DONE if is_end else text
