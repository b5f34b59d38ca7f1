"""Values of the models endpoints for clients that name no version of Anthropic's API.

They hold both APIs' keys, as each API's clients ignore the other's, and a program such as curl
shows both.
"""

from typing import Literal

from pensieve.api.base import ApiModel
from pensieve.api.models import ModelInfo


class Model(ModelInfo):
    """A model, under one of its names."""

    object: Literal["model"] = "model"
    created: int  # Unix seconds
    owned_by: Literal["pensieve"] = "pensieve"
    context_length: int  # prompt and answer together


class ModelList(ApiModel):
    """A page of models; the next page begins after `last_id`."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None
