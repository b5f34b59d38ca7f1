"""A wire value as a 200 response. Shared by all endpoints."""

from starlette.responses import Response

from pensieve.api.base import ApiModel


def json_response(value: ApiModel) -> Response:
    return Response(value.to_json(), media_type="application/json")
