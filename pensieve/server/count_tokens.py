"""`POST /v1/messages/count_tokens`: what the same request's usage will report, cached tokens included."""

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.message import OriginalTokens, TokenCount
from pensieve.api.request import CountTokensRequest
from pensieve.server.answers import answer
from pensieve.server.calls import CallReader


class CountTokensEndpoint:
    """Counts without asking the engine."""

    def __init__(self, calls: CallReader) -> None:
        self._calls = calls

    async def count(self, request: Request) -> Response:
        """Answer one request."""
        call, _ = await self._calls.read(request, CountTokensRequest)
        prompt = await self._calls.render(call)
        original = OriginalTokens(original_input_tokens=prompt.original_tokens)
        return answer(
            TokenCount(
                input_tokens=len(prompt.tokens),
                context_management=None if call.context_management is None else original,
            )
        )
