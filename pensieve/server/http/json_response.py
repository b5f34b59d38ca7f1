"""A wire value as the response that says it."""

from starlette.responses import Response

from pensieve.api.base import ApiModel


def json_response(value: ApiModel) -> Response:
    """200 and the value as JSON."""
    return Response(value.to_json(), media_type="application/json")
