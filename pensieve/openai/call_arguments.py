"""The arguments of a call as they were generated: whole, or cut off anywhere."""

from pydantic_core import from_json


def is_whole(arguments: str) -> bool:
    """Whether they were generated to their end. Those of a tool without parameters are `{}`."""
    try:
        from_json(arguments)
    except ValueError:
        return False
    return True


def text_input(arguments: str) -> str:
    """Return the input of a custom tool, which is the text in an object, as far as it goes."""
    try:
        fields = from_json(arguments or "{}", allow_partial="trailing-strings")
    except ValueError:
        return arguments
    match fields:
        case {"input": str(value)}:
            return value
        case _:
            return arguments if fields else ""
