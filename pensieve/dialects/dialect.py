"""Describe as values how a model family writes tool calls and thoughts.

One description serves three purposes: to write the calls of earlier turns (format_calls.py), to
constrain the model to the form (grammar/answer_grammar.py), and to parse answers (reply). Knows no
template, no tokens and no API.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults

Schema = Mapping[str, object]
# Variables of a chat template, next to the messages.
Variables = Mapping[str, object]

# An answer's thought: none, one that the model may begin, or one that the prompt has begun.
Thought = Literal["none", "possible", "begun"]

# What writes the calls of earlier turns: format_calls.py, into the assistant's text, or the chat
# template, from `tool_calls`.
CallWriter = Literal["text", "template"]
# What writes tools and results: the chat template, or we, into the system part and the user's text.
ToolWriter = Literal["template", "text"]


@dataclass(frozen=True, slots=True)
class InputGrammar:
    """A client's grammar for the text that a tool takes as its one argument."""

    syntax: Literal["lark", "regex"]
    definition: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it."""

    name: str
    description: str
    schema: Schema
    input_grammar: InputGrammar | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, object]
    id: str = ""  # for families that write it into the call


@dataclass(frozen=True, slots=True)
class ParameterForm:
    """Arguments that are not JSON: `before_key` key `after_key` value `after_value`, repeated."""

    before_key: str
    after_key: str
    after_value: str = ""
    separator: str = ""  # between parameters
    # Around a text: '"' for texts as in JSON, None for texts that only `after_value` ends.
    quote: str | None = None
    is_nested: bool = False  # objects and lists inside are in this form too, not JSON

    @property
    def text_end(self) -> str:
        """Return the mark that ends a text, if the form does not escape it in the text."""
        return "" if self.quote == '"' else (self.quote or self.after_value).strip()


@dataclass(frozen=True, slots=True)
class CallForm:
    """How calls are written: sections of `opening`, calls, `closing`.

    A call is `before_name` name `after_name` arguments `after_arguments`. In these, `{index}` is
    the call's index in the answer, and `{id}` an id that the model makes up. Without an opening, a
    call is the whole answer.
    """

    opening: str
    before_name: str
    after_name: str
    after_arguments: str
    closing: str
    inside: tuple[str, str] = ("", "")  # follows the opening, precedes the closing
    separator: str | None = None  # between calls; None: a section has one call
    between: str = "\n"  # between sections
    parameters: ParameterForm | None = None  # None: arguments are JSON
    keys: tuple[str, str] | None = None  # of name and arguments, if a call is one JSON object


@dataclass(frozen=True, slots=True)
class ThinkingForm:
    """How a model writes thoughts, and the template variables that control them."""

    opening: str = "<think>"
    closing: str = "</think>"
    after: str = ""  # what the model writes between the thought and the rest of its answer
    message_field: str = "reasoning_content"  # from which the template reads earlier thoughts
    # Template variables that turn thinking on and off; empty if there is no switch.
    on: Variables = field(default_factory=dict[str, object])
    off: Variables = field(default_factory=dict[str, object])
    efforts: Mapping[str, Variables] = field(default_factory=dict[str, Variables])  # weakest first
    is_begun: bool = False  # the template begins an answer in a thought by itself

    @property
    def is_used(self) -> bool:
        """Whether the template shows that its model thinks: other models may have the marks too."""
        return bool(self.on or self.off or self.efforts or self.is_begun)

    def state_after(self, prompt: str) -> Thought:
        """Return whether the answer to a rendered prompt begins in a thought or may have one."""
        end = prompt.rstrip()
        if end.endswith(self.opening):
            return "begun"
        return "none" if end.endswith(self.closing) else "possible"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family writes."""

    name: str
    calls: CallForm
    tools: ToolWriter = "template"
    writer: CallWriter = "text"
    thinking: ThinkingForm | None = None
    # The grammar treats an answer that begins like a call's JSON, fenced or not, as calls. Reply
    # parses such calls in every family.
    has_bare_calls: bool = False
    id_chars: int | None = None  # length of call ids, if the template requires one
    # The id in a call's result, made of parts of the call: `{name}`, `{index}`, `{id}`. Empty: any.
    call_id: str = ""
    # The template writes a call together with its result: each call precedes its own result.
    calls_with_results: bool = False
    # Precedes an answer's text, in a family whose answers are either text or one call.
    text_opening: str = ""
    silent: tuple[str, ...] = ()  # marks between parts of an answer that are not text
    has_tool_template: bool = False  # conversations with tools have a chat template of their own
    # Of this model, not its family: from generation_config.json and the settings.
    sampling: SamplingDefaults = NEUTRAL

    def marks(self, controls: Collection[str]) -> frozenset[str]:
        """Return the control tokens that this dialect writes and that must be parsed."""
        written = "\0".join(self._literals())
        return frozenset(control for control in controls if control in written)

    def _literals(self) -> Iterator[str]:
        form = self.calls
        yield from (form.opening, *form.inside, form.before_name, form.after_name)
        yield from (form.after_arguments, form.separator or "", form.closing)
        if (parameters := form.parameters) is not None:
            yield from (parameters.before_key, parameters.after_key, parameters.after_value)
            yield from (parameters.separator, parameters.quote or "")
        if self.thinking is not None:
            yield from (self.thinking.opening, self.thinking.closing, self.thinking.after)
        yield from (self.text_opening, *self.silent)


# Patterns of what models write for `{index}` and `{id}`.
HOLES = {"{index}": "[0-9]{1,3}", "{id}": "[a-zA-Z0-9]{9}"}

JSON_CALL = CallForm(
    opening="<tool_call>",
    inside=("\n", "\n"),
    before_name='{"name": "',
    after_name='", "arguments": ',
    after_arguments="}",
    closing="</tool_call>",
    keys=("name", "arguments"),
)
