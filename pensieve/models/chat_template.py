"""A model's chat template: Jinja text that came with the weights, so it runs in a sandbox (sandbox.py).

Gives templates what transformers gives them (loop controls, `{% generation %}`, `raise_exception`, `strftime_now`, a
`tojson` that leaves HTML's characters alone, the special tokens' names). Knows no tokens.
"""

# pyright: basic

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from pensieve.errors import InvalidRequestError
from pensieve.models.sandbox import LIMIT_S, BoundedEnvironment, require_few

# What a sandboxed template can end with for a conversation that it does not expect.
_REFUSALS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    MemoryError,
)


class ChatTemplate:
    """A template, compiled once. `tokens` are its variables: bos_token and the like.

    Raises `jinja2.TemplateError` where `source` is not Jinja.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        *,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
        limit_s: float = LIMIT_S,
    ) -> None:
        environment = BoundedEnvironment(limit_s)
        environment.filters["tojson"] = _to_json
        functions: dict[str, Any] = {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: now().strftime(form),
        }
        environment.globals.update(functions)
        self.source = source
        self._tokens = dict(tokens)
        self._render = environment.bounded(source)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt's text up to where the assistant begins. Raises `InvalidRequestError` where the template refuses."""
        told: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
        told.update(variables or {})
        try:
            return self._render(messages=messages, **self._tokens, **told)
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"messages: the model's chat template does not take this conversation: {error}"
            ) from error


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    """What Jinja's filters make lists of comes one by one."""
    value = list(value) if isinstance(value, Iterator) else value
    require_few(value)
    return json.dumps(value, **{"ensure_ascii": False, **options})
