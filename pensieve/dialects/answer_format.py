"""Describe how one answer is written and parsed: the dialect, the callable tools, the thought."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pensieve.dialects.dialect import Dialect, Schema
from pensieve.dialects.grammar.answer_grammar import MAX_CALLS


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    dialect: Dialect
    tools: Mapping[str, Schema] = field(default_factory=dict[str, Schema])  # callable, by name
    is_in_thought: bool = False  # the prompt has opened a thought
    may_think: bool = True  # False after a prefill: the answer has begun
    has_text: bool = True  # text is allowed in addition to calls
    max_calls: int = MAX_CALLS
