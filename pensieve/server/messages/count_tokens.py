"""`POST /v1/messages/count_tokens`: the input tokens that the same request to `messages` would
report, cached ones included. An estimate for prompts far beyond the model's context.
"""

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.messages.message import OriginalTokens, TokenCount
from pensieve.api.messages.request import CountTokensRequest
from pensieve.errors import PromptTooLongError
from pensieve.server.http.json_response import json_response
from pensieve.server.messages.pipeline import RequestPipeline


class CountTokensEndpoint:
    """Counts without the engine."""

    def __init__(self, pipeline: RequestPipeline) -> None:
        self._pipeline = pipeline

    async def count(self, request: Request) -> Response:
        call, _ = await self._pipeline.read(request, CountTokensRequest)
        try:
            prompt = await self._pipeline.render(call)
        except PromptTooLongError as error:
            return json_response(TokenCount(input_tokens=error.prompt_tokens))
        original = OriginalTokens(original_input_tokens=prompt.original_tokens)
        return json_response(
            TokenCount(
                input_tokens=len(prompt.tokens),
                context_management=None if call.context_management is None else original,
            )
        )
