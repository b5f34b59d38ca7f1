"""Translates the parser's errors: the argument as typed, the allowed values, the help command.

Called by cli/app.py with an error of cyclopts; imported only when there is one.
"""

from typing import Literal, cast, get_args, get_origin

from cyclopts import Argument
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnusedCliTokensError,
    ValidationError,
)

from pensieve.cli.lifecycle.start_options import Allowed
from pensieve.errors import UsageError
from pensieve.settings.spec import shortened


def usage_error(error: CycloptsError) -> UsageError:
    command = " ".join(["pensieve", *(error.command_chain or ())])
    return UsageError(_message(error), hint=f"Show the usage:\n  {command} --help")


def _message(error: CycloptsError) -> str:
    match error:
        case CoercionError() | ValidationError() if value := _wrong_value(error):
            return value
        case MissingArgumentError() if argument := error.argument:
            allowed = _allowed(argument) or _choices(argument)
            return f"{error.keyword or _name(argument)} needs a value. {allowed}".rstrip()
        case UnusedCliTokensError():
            extra = " ".join(error.unused_tokens or ())
            return f'Unexpected argument "{shortened(extra)}".'
        case _:
            return str(error)


def _wrong_value(error: CoercionError | ValidationError) -> str:
    """Return the whole message; empty if the parser's own names the allowed values."""
    argument = error.argument
    token = error.token if isinstance(error, CoercionError) else None
    if argument and argument.tokens:
        token = token or argument.tokens[0]
    if argument is None or token is None or not (allowed := _allowed(argument)):
        return ""
    value = shortened(token.value)
    return f'Invalid value "{value}" for {token.keyword or _name(argument)}. {allowed}'


def _name(argument: Argument) -> str:
    """Return an option with its dashes, any other argument as the usage line writes it."""
    return argument.name if argument.name.startswith("-") else argument.name.upper()


def _allowed(argument: Argument) -> str:
    """Return a sentence about the allowed values; empty if only the parser knows them."""
    if argument.resolved_hint is bool:
        return "It can be true or false; alone it means true."
    checks = cast("tuple[object, ...]", argument.parameter.validator)
    return next((str(check) for check in checks if isinstance(check, Allowed)), "")


def _choices(argument: Argument) -> str:
    """Return the values of a `Literal`; for a wrong value the parser names them itself."""
    is_listed = get_origin(argument.resolved_hint) is Literal
    return f"It can be {', '.join(get_args(argument.resolved_hint))}." if is_listed else ""
