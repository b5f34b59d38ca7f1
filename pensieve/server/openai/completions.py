"""`POST /v1/completions`: a text continued without a chat template, for editors."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import parse
from pensieve.openai.text_completion import TextCompletion, TextCompletionRequest, TextFold
from pensieve.server.http.request_body import read_body
from pensieve.server.messages.completion import Completer
from pensieve.server.messages.pipeline import AnswerWriter, Exchange, RequestPipeline
from pensieve.server.middleware.request_context import key_name_of
from pensieve.server.openai.options import answer_options, stream_text
from pensieve.worker_threads import run_in_thread


class TextFormat:
    def __init__(self, fold: TextFold) -> None:
        self._fold = fold

    def feed(self, events: Sequence[MessageEvent], choice: int) -> str:
        chunks = self._fold.feed(events, choice)
        return stream_text(chunks, is_end=self._fold.is_ended)

    def body(self, message: Message) -> TextCompletion:
        return self._fold.completion


class CompletionsEndpoint:
    def __init__(
        self,
        pipeline: RequestPipeline,
        completer: Completer,
        writer: AnswerWriter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pipeline = pipeline
        self._completer = completer
        self._writer = writer
        self._clock = clock

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await read_body(request)
        with self._completer.expect():
            call = await run_in_thread(partial(_parsed, body))
            del body  # the answer does not need its megabytes
            prompt = await self._pipeline.render_text(call.prompt, call.suffix)
        client = key_name_of(request)
        options = answer_options(call, call.max_tokens, call.logprobs, client=client)
        completions = self._completer.choices(prompt, options)
        includes_usage = call.stream and call.stream_options.include_usage
        created = int(self._clock())
        fold = TextFold(created, includes_usage=includes_usage, choices=call.n)
        exchange = Exchange(scope, receive, send, call.prompt)
        await self._writer.write(completions, TextFormat(fold), exchange, stream=call.stream)


def _parsed(body: bytes) -> TextCompletionRequest:
    call = parse(TextCompletionRequest, body)
    call.check_supported()
    return call
