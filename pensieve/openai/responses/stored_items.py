"""Items as they are stored: with an id, and messages with parts, so that they can be listed."""

from collections.abc import Mapping, Sequence

from pensieve.api.base import new_id
from pensieve.errors import InvalidRequestError
from pensieve.openai.responses.items import kind_of
from pensieve.openai.responses.request import InputItemsQuery, JsonObject
from pensieve.openai.responses.response import ItemList

_PREFIXES: Mapping[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


def reference_of(item: JsonObject) -> str | None:
    """Return the id of the item that `item` refers to; None if it is one itself."""
    item_id = item.get("id") if kind_of(item) == "item_reference" else None
    return item_id if isinstance(item_id, str) else None


def stored_item(item: JsonObject) -> JsonObject:
    kind = kind_of(item)
    item_id = item.get("id") or new_id(_PREFIXES.get(kind, "item"))
    stored: JsonObject = {"type": kind, **item, "id": item_id}
    if kind == "message" and isinstance(content := item.get("content"), str):
        part_type = "output_text" if item.get("role") == "assistant" else "input_text"
        stored["content"] = [{"type": part_type, "text": content}]
    return stored


def item_page(items: Sequence[JsonObject], query: InputItemsQuery) -> ItemList:
    """Return a page of stored items, which begin with the oldest.

    Raises `InvalidRequestError` for an unknown cursor.
    """
    ordered = items if query.order == "asc" else items[::-1]
    start = 0
    if query.after is not None:
        ids = [item["id"] for item in ordered]
        if query.after not in ids:
            raise InvalidRequestError("after: no item here has this id")
        start = ids.index(query.after) + 1
    page = [_listed(item) for item in ordered[start : start + query.limit]]
    return ItemList(
        data=tuple(page),
        first_id=str(page[0]["id"]) if page else None,
        last_id=str(page[-1]["id"]) if page else None,
        has_more=start + query.limit < len(ordered),
    )


def _listed(item: JsonObject) -> JsonObject:
    """Return a stored item as clients see it: without the signature of a thought."""
    return {name: value for name, value in item.items() if name != "encrypted_content"}
