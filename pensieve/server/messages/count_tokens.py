"""`POST /v1/messages/count_tokens`: what the same request's usage will report, cached tokens included.

Of a prompt that is many times too long for the model, about how many tokens it is.
"""

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.messages.message import OriginalTokens, TokenCount
from pensieve.api.messages.request import CountTokensRequest
from pensieve.errors import PromptTooLongError
from pensieve.server.http.json_response import json_response
from pensieve.server.messages.pipeline import RequestPipeline


class CountTokensEndpoint:
    """Counts without asking the engine."""

    def __init__(self, calls: RequestPipeline) -> None:
        self._calls = calls

    async def count(self, request: Request) -> Response:
        """Answer one request."""
        call, _ = await self._calls.read(request, CountTokensRequest)
        try:
            prompt = await self._calls.render(call)
        except PromptTooLongError as error:
            return json_response(TokenCount(input_tokens=error.prompt_tokens))
        original = OriginalTokens(original_input_tokens=prompt.original_tokens)
        return json_response(
            TokenCount(
                input_tokens=len(prompt.tokens),
                context_management=None if call.context_management is None else original,
            )
        )
