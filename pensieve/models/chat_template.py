"""A model's chat template: Jinja text that came with the weights, so it runs in a sandbox.

Gives templates what transformers gives them (loop controls, `{% generation %}`, `raise_exception`, `strftime_now`, a
`tojson` that leaves HTML's characters alone, the special tokens' names). Knows no tokens.
"""

# pyright: basic

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import ext, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pensieve.errors import InvalidRequestError

# What a sandboxed template can end with for a conversation that it does not expect.
_REFUSALS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
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
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        functions: dict[str, Any] = {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: now().strftime(form),
        }
        environment.globals.update(functions)
        self.source = source
        self._tokens = dict(tokens)
        self._template = environment.from_string(source)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt's text up to where the assistant begins. Raises `InvalidRequestError` where the template refuses."""
        told: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
        told.update(variables or {})
        try:
            return self._template.render(messages=messages, **self._tokens, **told)
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"messages: the model's chat template does not take this conversation: {error}"
            ) from error


class GenerationBlock(ext.Extension):
    """`{% generation %}`: marks for training what the assistant said. Here its content is plain content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The block's content, as if the tags were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    """What Jinja's filters make lists of comes one by one."""
    value = list(value) if isinstance(value, Iterator) else value
    return json.dumps(value, **{"ensure_ascii": False, **options})
