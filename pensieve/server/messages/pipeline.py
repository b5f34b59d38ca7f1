"""The steps from a request's body to its prompt; endpoint.py states their order.

They run in worker threads: tokenizing can take seconds and must not block the event loop. A
crossing between threads costs about 0.1 ms.
"""

import logging
from functools import partial
from typing import TypeVar

from pensieve.api.messages.request import ApiVersion, Conversation, parse
from pensieve.api.messages.tools import ServerTool
from pensieve.engine.generation import Engine
from pensieve.errors import InvalidRequestError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.conversation.file_text import FileText, with_file_texts
from pensieve.prompt.conversation.validation import validate
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.messages.completion import AnswerOptions
from pensieve.worker_threads import DeadlineThreads, run_in_thread

_log = logging.getLogger("pensieve.server")

# Rendering keeps a core busy: more threads at once are no faster, and each delays the event loop.
MAX_RENDER_THREADS = 4
# Rendering and tokenizing 8 million characters, which no context exceeds, takes 10 s (2026-11-30,
# two-core Linux). Some expressions in tokenizers take hours for some texts.
RENDER_TIMEOUT_S = 120.0
# What a request means that names no version.
OLDEST_VERSION = ApiVersion()

ConversationT = TypeVar("ConversationT", bound=Conversation)


class RequestPipeline:
    """The steps for one served model."""

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        file_text: FileText,  # raises `NotFoundError`
        generated_answers: GeneratedAnswers,
        threads: DeadlineThreads | None = None,
    ) -> None:
        self._engine = engine
        self._context_tokens = model.context_tokens
        self._file_text = file_text
        self._threads = threads or DeadlineThreads(MAX_RENDER_THREADS, RENDER_TIMEOUT_S)
        self._renderer = PromptRenderer(
            model.tokenizer, model.dialect, model.context_tokens, generated_answers
        )

    async def parse(self, kind: type[ConversationT], body: bytes) -> ConversationT:
        """Return the call in `body`, with the texts of its files.

        Raises `InvalidRequestError`, `RequestTooLargeError`, and `NotFoundError` for a file.
        """

        def parsed() -> ConversationT:
            call = parse(kind, body)
            return with_file_texts(call, self._file_text) if call.names_files else call

        return await run_in_thread(parsed)

    async def validate(
        self,
        call: Conversation,
        api_version: ApiVersion = OLDEST_VERSION,
        *,
        stored_turns: int = 0,
    ) -> None:
        """Raises what `prompt.conversation.validation.validate` raises."""
        await run_in_thread(partial(validate, call, api_version, stored_turns))
        server_tools = [tool.type for tool in call.tools if isinstance(tool, ServerTool)]
        if server_tools:
            _log.warning(
                "ignoring tools that only the hosted API can run: %s", ", ".join(server_tools)
            )

    async def render(self, call: Conversation, options: AnswerOptions | None = None) -> Prompt:
        """Return the prompt of a whole conversation. options: of its answer, if there will be one.

        Raises `InvalidRequestError`, also on timeout, and `PromptTooLongError` without tokenizing
        for a prompt far beyond the context.
        """
        try:
            return await self._threads.run(partial(self._render, call, options))
        except TimeoutError:
            raise InvalidRequestError(
                "messages: the model's chat template and tokenizer take too long for this prompt"
            ) from None

    def _render(self, call: Conversation, options: AnswerOptions | None) -> Prompt:
        context_tokens = self._engine.health.context_of(self._context_tokens)
        answer_tokens = None
        if options is not None:
            answer_tokens = (
                self._context_tokens if options.max_tokens is None else options.max_tokens
            )
        return self._renderer.render(
            call, context_tokens=context_tokens, answer_tokens=answer_tokens
        )
