"""Render a model's chat template: Jinja that came with the weights, so it runs in a sandbox.

Templates get what transformers provides (loop controls, `{% generation %}`, `raise_exception`,
`strftime_now`, a `tojson` that does not escape HTML, the special tokens' names). Knows no tokens.
The sandbox is template_sandbox.py.
"""

# pyright: basic

import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from pensieve.errors import InvalidRequestError
from pensieve.models.tokenizer.template_sandbox import LIMIT_S, BoundedEnvironment, limit_count

# Errors of sandboxed templates for conversations that they do not expect.
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
    """A compiled template, and a second one for conversations with tools if the model has one.

    `tokens` are variables: bos_token and the like. Raises `jinja2.TemplateError` if not Jinja.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        *,
        tool_source: str | None = None,
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
        self._tokens = dict(tokens)
        self._limit_s = limit_s
        self._render, self.names = environment.bounded(source)
        self._render_tools, self.source = self._render, source
        if tool_source is not None:
            self._render_tools, names = environment.bounded(tool_source)
            self.names |= names
            self.source = f"{tool_source}\n{source}"

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Return the prompt's text up to the assistant's turn. Raises `InvalidRequestError` if
        the template refuses.
        """
        context: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
        context.update(variables or {})
        has_tools = context["tools"] is not None or any(map(_is_about_tools, messages))
        try:
            render = self._render_tools if has_tools else self._render
            return render(messages=messages, **self._tokens, **context)
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"messages: the model's chat template does not accept this conversation: {error}"
            ) from error

    @property
    def has_tool_source(self) -> bool:
        """Whether a template for tools exists. Passing `tools`, even empty, selects it."""
        return self._render_tools is not self._render

    def probing_render(self) -> Callable[..., str]:
        """Return a `render` for probes that refuses further ones after one time limit in total.

        So a template that never ends costs at most two limits, in any number of probes.
        """
        spent_s = 0.0

        def render(
            messages: Sequence[Mapping[str, object]],
            variables: Mapping[str, object] | None = None,
        ) -> str:
            nonlocal spent_s
            if spent_s >= self._limit_s:
                raise InvalidRequestError("the model's chat template takes too long")
            began_at = time.thread_time()
            try:
                return self.render(messages, variables)
            finally:
                spent_s += time.thread_time() - began_at

        return render


def _is_about_tools(message: Any) -> bool:
    """Whether a message calls a tool or contains a result."""
    is_message = isinstance(message, Mapping)
    return is_message and (message.get("role") == "tool" or bool(message.get("tool_calls")))


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    """Accept iterators, which Jinja's filters return in place of lists."""
    value = list(value) if isinstance(value, Iterator) else value
    limit_count(value)
    return json.dumps(value, **{"ensure_ascii": False, **options})
