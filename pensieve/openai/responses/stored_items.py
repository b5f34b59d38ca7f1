"""Items as they are stored: with an id, and messages with parts, so that they can be listed."""

from collections.abc import Iterable, Mapping

from pensieve.api.base import new_id
from pensieve.openai.responses.items import kind_of
from pensieve.openai.responses.request import JsonObject

_PREFIXES: Mapping[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


def reference_of(item: JsonObject) -> str | None:
    """Return the id of the item that `item` stands for; None if it is one itself."""
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


def listed_items(items: Iterable[JsonObject]) -> list[JsonObject]:
    """Return stored items as a client sees them: without the signatures of thoughts."""
    return [
        {name: value for name, value in item.items() if name != "encrypted_content"}
        for item in items
    ]
