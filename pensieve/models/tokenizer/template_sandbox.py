"""The Jinja environment of chat templates: a sandbox with limits on time and size.

A thread cannot be ended from outside, so everything that can repeat forever checks the clock: every
round of a loop, every call. Operations that can grow a value in one step (a product, a power, a
text joined to itself, a filter with a count) are checked at that step. Knows no template.
"""

# pyright: basic

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import ext, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# Of the thread's CPU time, so that a busy machine refuses nothing. A session of 1 MB takes 0.01 s
# (2026-11-26, two-core Linux).
LIMIT_S = 2.0
# A body of 32 MiB in which everything is escaped becomes three times as long.
MAX_CHARS = 100_000_000
MAX_ITEMS = 1_000_000
# Widths, counts and exponents, which determine the work of one step.
MAX_NUMBER = 10_000

_ROUNDS, _SIZE = "pensieve_rounds", "pensieve_size"
# Filters whose work or output grows with a number.
_COUNTING_FILTERS = ("batch", "center", "indent", "round", "slice", "wordwrap")


class GenerationBlock(ext.Extension):
    """`{% generation %}` marks the assistant's text for training. Here its content is plain
    content.
    """

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Clock(threading.local):
    until = math.inf


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Raises `jinja2.TemplateError` for what exceeds a limit; `limit_s` applies per rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[ext.loopcontrols, GenerationBlock],
            finalize=_checked_output,
        )
        self._limit_s = limit_s
        self._clock = _Clock()
        del self.globals["lipsum"]
        for name in _COUNTING_FILTERS:
            self.filters[name] = _counted(self.filters[name])
        self.filters |= {_ROUNDS: self._rounds, _SIZE: _checked_output}

    def bounded(self, source: str) -> tuple[Callable[..., str], frozenset[str]]:
        """Return the template's rendering and the names that it reads, its own variables included.

        Raises `jinja2.TemplateError` if `source` is not Jinja.
        """
        bounds = _Bounds(self)
        template = self.from_string(bounds.visit(self.parse(source)))

        def render(**variables: Any) -> str:
            self._clock.until = time.thread_time() + self._limit_s
            pieces, chars = [], 0
            for piece in template.generate(**variables):
                pieces.append(piece)
                chars += len(piece)
                _require(chars <= MAX_CHARS, "writes too much")
            return "".join(pieces)

        return render, frozenset(bounds.names)

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._check_clock()
        if isinstance(called, BuiltinMethodType):
            _require_small(*args, *kwargs.values())
        return _sized(super().call(context, called, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            _require_small(left, right)
        if operator == "%":
            _require_narrow(left)
        if operator == "*":
            _require(_length(left) * _length(right) <= MAX_CHARS, "multiplies too much")
        return _sized(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _require_narrow(value.__self__)
        return wrapped

    def _rounds(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._check_clock()
            yield item

    def _check_clock(self) -> None:
        _require(time.thread_time() < self._clock.until, f"takes more than {self._limit_s:g} s")


class _Bounds(NodeTransformer):
    """Inserts checks into a parsed template, and collects the names that it reads.

    `jinja2.meta.find_undeclared_variables` omits the template's own variables, and it compiles the
    template once more: 10 to 60 ms for those of 2026 (2026-11-30, two-core Linux).
    """

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment
        self.names: set[str] = set()

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802
        if node.ctx == "load":
            self.names.add(node.name)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = self._filtered(node.iter, _ROUNDS, node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [self._filtered(part, _SIZE, node.lineno) for part in node.nodes]
        return self._filtered(node, _SIZE, node.lineno)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = self._filtered(node.filter, _SIZE, node.lineno)
        return node

    def _filtered(self, node: Any, name: str, line: int) -> nodes.Filter:
        filter_node = nodes.Filter(node, name, [], [], None, None, lineno=line)
        filter_node.set_environment(self._environment)
        return filter_node


def _counted(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(filter_)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _require_small(*args[1:], *kwargs.values())
        return _sized(filter_(*args, **kwargs))

    return counted


def _require_small(*numbers: Any) -> None:
    for number in numbers:
        if isinstance(number, int | float):
            _require(abs(number) <= MAX_NUMBER, "uses too large a number")


def _require_narrow(form: Any) -> None:
    """Refuse format strings that could demand a large width."""
    if isinstance(form, str):
        _require(re.search(r"[0-9]{6}", form) is None, "uses too large a width")


def _length(value: Any) -> int:
    """Return the length of a text or list; for a number, how often it repeats one."""
    if isinstance(value, int):
        return abs(value)
    return len(value) if isinstance(value, str | list | tuple) else 1


def _sized(value: Any) -> Any:
    if isinstance(value, str):
        _require(len(value) <= MAX_CHARS, "makes too long a text")
    elif isinstance(value, list | tuple):
        _require(len(value) <= MAX_ITEMS, "makes too long a list")
    return value


def _checked_output(value: Any) -> Any:
    """Check a value before it is written: a list that contains itself repeatedly could be
    endless.
    """
    if not isinstance(value, list | tuple | dict):
        return _sized(value)
    limit_count(value)
    return value


def limit_count(value: Any) -> None:
    """Raise `jinja2.TemplateError` if nested lists and objects have more items than may be
    written.
    """
    level, count = [value], 0
    while level:
        count += len(level)
        _require(count <= MAX_ITEMS, "writes too large a value")
        level = [
            child
            for each in level
            if isinstance(each, dict | list | tuple)
            for child in (each.values() if isinstance(each, dict) else each)
        ]


def _require(is_allowed: bool, problem: str) -> None:  # noqa: FBT001
    if not is_allowed:
        raise jinja2.TemplateError(f"the template {problem}")
