"""What a model family's way of writing is made of, as values: how tool calls stand in its text, and how its thoughts do.

One description serves three times: to write the calls of earlier turns (format_calls.py), to hold the model to its form
(dialects/grammar/answer_grammar.py), and to read what it wrote (reply). Knows no template, no token and no wire.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults

Schema = Mapping[str, object]
# Variables of a chat template, next to the messages.
Variables = Mapping[str, object]

# Whether an answer has a thought: none, one that the model may begin, one that the prompt has begun.
Thought = Literal["none", "possible", "begun"]

# Who writes the calls of earlier turns: we, into the assistant's text, or the chat template, from `tool_calls`.
CallWriter = Literal["text", "template"]
# Who writes tools and results: the chat template, or we, into the system part and the user's text.
ToolWriter = Literal["template", "text"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is shown it."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, object]
    id: str = ""  # for families that write it into the call


@dataclass(frozen=True, slots=True)
class ParameterForm:
    """Arguments that are not JSON: `before_key` key `after_key` value `after_value`, with `separator` between them.

    quote: what stands around a text: '"' for texts as JSON has them, None for texts that end at `after_value` alone.
    is_nested: objects and lists inside are written in this form too, not as JSON.
    """

    before_key: str
    after_key: str
    after_value: str = ""
    separator: str = ""
    quote: str | None = None
    is_nested: bool = False

    @property
    def text_end(self) -> str:
        """Return the mark that ends a text, if the form does not escape it in the text."""
        return "" if self.quote == '"' else (self.quote or self.after_value).strip()


@dataclass(frozen=True, slots=True)
class CallForm:
    """How calls stand in a text: sections of `opening`, calls with `separator` between them, `closing`.

    A call is `before_name` name `after_name` arguments `after_arguments`; in these `{index}` is its place among the calls,
    and `{id}` an id that the model makes up. inside: what follows the opening and precedes the closing. Without a separator a section holds one call; `between` stands between
    sections. Where a call is one JSON object, `keys` are those of the name and of the arguments. Without an opening a call
    stands alone, as the whole answer.
    """

    opening: str
    before_name: str
    after_name: str
    after_arguments: str
    closing: str
    inside: tuple[str, str] = ("", "")
    separator: str | None = None
    between: str = "\n"
    parameters: ParameterForm | None = None
    keys: tuple[str, str] | None = None


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
        """Whether the template shows that its model thinks: some that do not have the marks too."""
        return bool(self.on or self.off or self.efforts or self.is_begun)

    def state_after(self, prompt: str) -> Thought:
        """Return whether the answer to a rendered prompt begins in a thought or may have one."""
        end = prompt.rstrip()
        if end.endswith(self.opening):
            return "begun"
        return "none" if end.endswith(self.closing) else "possible"


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family's way of writing.

    has_bare_calls: the grammar holds an answer that begins as a call's JSON, fenced or not, to be calls; they are read in
    every family. id_letters: how long the template
    wants the ids of calls, where it is particular. calls_with_results: it takes a call and its result one after the other, so
    several calls of one turn stand each before its result. text_opening: what an answer's text stands behind, in a family whose
    answers are either text or one call; there `silent` marks part an answer and are not said.
    """

    name: str
    calls: CallForm
    tools: ToolWriter = "template"
    writer: CallWriter = "text"
    thinking: ThinkingForm | None = None
    has_bare_calls: bool = False
    id_letters: int | None = None
    # The id by which the template names a call's result, made of what is written in the call:
    # `{name}`, `{index}`, `{id}`. Empty: any id.
    call_id: str = ""
    calls_with_results: bool = False
    text_opening: str = ""
    silent: tuple[str, ...] = ()
    has_tool_template: bool = False  # conversations with tools have a chat template of their own
    # Of this one model, not of its family: what its makers say, and the settings.
    sampling: SamplingDefaults = NEUTRAL

    def marks(self, controls: Collection[str]) -> frozenset[str]:
        """Those of a model's control tokens that this dialect writes, and that must be read."""
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


# What stands for `{index}` and `{id}`, as patterns.
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
