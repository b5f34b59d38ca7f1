"""`POST /v1/messages/count_tokens`: what the same request's usage will report, cached tokens included."""

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.message import TokenCount
from pensieve.api.request import CountTokensRequest
from pensieve.server.calls import CallReader


class CountTokensEndpoint:
    """Counts without asking the engine."""

    def __init__(self, calls: CallReader) -> None:
        self._calls = calls

    async def count(self, request: Request) -> Response:
        """Answer one request."""
        _, prompt_tokens = await self._calls.read(request, CountTokensRequest)
        count = TokenCount(input_tokens=len(prompt_tokens))
        return Response(count.to_json(), media_type="application/json")
