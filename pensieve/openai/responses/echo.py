"""The response to a request as it begins: it repeats the request's options."""

from collections.abc import Sequence

from pydantic import JsonValue

from pensieve.openai.responses.request import JsonObject, ResponsesRequest
from pensieve.openai.responses.response import Response


def response_to(request: ResponsesRequest, *, created_at: int) -> Response:
    """Return the response without an id, which its answer gives."""
    reasoning = request.reasoning
    return Response(
        id="",
        created_at=created_at,
        instructions=request.instructions or None,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=request.model,
        parallel_tool_calls=request.parallel_tool_calls,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        reasoning={"effort": reasoning.effort, "summary": reasoning.summary},
        safety_identifier=request.safety_identifier,
        store=request.store,
        temperature=request.temperature,
        text={**request.text, "format": _format(request.text.get("format"))},
        tool_choice=request.tool_choice or "auto",
        tools=tuple(_tools(request.tools)),
        top_logprobs=request.top_logprobs,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        user=request.user,
        metadata=request.metadata,
    )


def _format(form: JsonValue) -> JsonObject:
    return {"type": "text", **(form if isinstance(form, dict) else {})}


def _tools(tools: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the tools with the fields that a function always has in a response."""
    return [
        {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool
        for tool in tools
    ]
