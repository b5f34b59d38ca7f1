"""Examples of what models of each family write, from their documentation, and its meaning."""

# ruff: noqa: RUF001 -- DeepSeek's marks contain these characters

from dataclasses import dataclass
from typing import Any

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import (
    deepseek,
    gemma,
    glm,
    harmony,
    hermes,
    kimi,
    lfm2,
    llama3,
    minimax,
    mistral,
    plain,
    qwen_coder,
)

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
WRITE = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "content": {"type": "string"},
        "mode": {"type": "integer"},
        "force": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["path", "content"],
    "additionalProperties": False,
}
CLOCK = {"type": "object", "properties": {}}
TOOLS: dict[str, dict[str, Any]] = {"get_weather": WEATHER, "write": WRITE, "clock": CLOCK}

PARIS = ("get_weather", {"city": "Paris"})
ROME = ("get_weather", {"city": "Rome", "unit": "celsius"})
CODE = (
    "write",
    {
        "path": "a b.py",
        "content": 'def f(x):\n    """a \\ b"""\n    return {"é": [1, "🙂"]}  # </b>\n',
        "mode": 420,
        "force": True,
        "tags": ["x", "y, z"],
    },
)
NOW = ("clock", {})

# Each dialect with what a text cannot contain: its own marks.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        plain.DIALECT,
        hermes.DIALECT,
        qwen_coder.DIALECT,
        mistral.LIST,
        mistral.LIST_WITH_ID,
        mistral.NAMED,
        mistral.WITH_ID,
        llama3.DIALECT,
        gemma.GEMMA_4,
        gemma.FUNCTION_GEMMA,
        lfm2.DIALECT,
        kimi.DIALECT,
        deepseek.V3,
        deepseek.V3_1,
        glm.DIALECT,
        glm.DENSE,
        minimax.DIALECT,
        harmony.DIALECT,
    )
}


@dataclass(frozen=True)
class Case:
    dialect: str
    written: str  # by the model
    means: list[str | tuple[str, dict[str, Any]]]  # texts, and calls: (name, input)


HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
ROMAN = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "unit": "celsius"}}'
    "\n</tool_call>"
)
CASES = [
    Case("hermes", HERMES, [PARIS]),
    Case("hermes", f"I'll look.\n{HERMES}", ["I'll look.", PARIS]),
    Case("hermes", f"{HERMES}\n{ROMAN}", [PARIS, ROME]),
    Case("hermes", f"a\n\n{HERMES}\nb\n{ROMAN}\n\nc", ["a", PARIS, "b", ROME, "c"]),
    Case("hermes", '<tool_call>{"name":"clock","arguments":{}}</tool_call>', [NOW]),
    Case("hermes", '<tool_call>\n{"name": "clock"}\n</tool_call>', [NOW]),
    Case("hermes", '<tool_call>\n{"n": 5, "name": "clock", "m": [1]}\n</tool_call>', [NOW]),
    Case(
        "hermes",
        '<tool_call>\n{"arguments": {"city": "Paris"}, "name": "get_weather"}\n</tool_call>',
        [PARIS],
    ),
    Case(
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}\n'
        "</tool_call>",
        [PARIS],
    ),
    Case("plain", HERMES, [PARIS]),
    Case("plain", '{"name": "get_weather", "arguments": {"city": "Paris"}}', [PARIS]),
    Case("plain", '\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n', [PARIS]),
    Case("plain", '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```', [PARIS]),
    Case(
        "qwen-coder",
        "Sure.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
        "<parameter=unit>\ncelsius\n</parameter>\n</function>\n</tool_call>",
        ["Sure.", ROME],
    ),
    Case(
        "qwen-coder",
        "<tool_call>\n<function=get_weather><parameter=city>Paris</parameter>"
        "</function></tool_call>",
        [PARIS],
    ),
    Case("qwen-coder", "<tool_call>\n<function=clock>\n</function>\n</tool_call>", [NOW]),
    Case(
        "mistral",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "clock", '
        '"arguments": {}}]',
        [PARIS, NOW],
    ),
    Case(
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}]',
        [PARIS],
    ),
    Case(
        "mistral-list-with-id",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}, '
        '{"name": "clock", "arguments": {}, "id": "a12345678"}]',
        [PARIS, NOW],
    ),
    Case(
        "mistral",
        '[TOOL_CALLS] [{"id": {"arguments": "x"}, "name": "clock", "arguments": {}}]',
        [NOW],
    ),
    Case(
        "mistral-named",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]clock[ARGS]{}',
        [PARIS, NOW],
    ),
    Case(
        "mistral-with-id",
        '[TOOL_CALLS]get_weather[CALL_ID]000000001[ARGS]{"city": "Paris"}',
        [PARIS],
    ),
    Case("llama3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS]),
    Case("llama3", '{"a": 1}', ['{"a": 1}']),
    Case("gemma4", '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>', [PARIS]),
    Case(
        "gemma4",
        '<|tool_call>call:write{path:<|"|>p<|"|>,content:<|"|>x, {y}<|"|>,tags:[<|"|>a<|"|>,'
        '<|"|>b}<|"|>],mode:1}<tool_call|><|tool_call>call:clock{}<tool_call|>',
        [("write", {"path": "p", "content": "x, {y}", "tags": ["a", "b}"], "mode": 1}), NOW],
    ),
    Case(
        "function-gemma",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        [PARIS],
    ),
    Case(
        "lfm2",
        '<|tool_call_start|>[get_weather(city="Rome", unit="celsius"), '
        "clock()]<|tool_call_end|>Looking.",
        [ROME, NOW, "Looking."],
    ),
    Case(
        "lfm2",
        "<|tool_call_start|>[write(path='it\\'s', content=\"a\\n"
        'b\\"", force=True, tags=[\'x\', "y, )"])]'
        "<|tool_call_end|>",
        [("write", {"path": "it's", "content": 'a\nb"', "force": True, "tags": ["x", "y, )"]})],
    ),
    Case(
        "kimi",
        "Looking.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>'
        "functions.clock:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        ["Looking.", PARIS, NOW],
    ),
    Case(
        "deepseek-v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n"
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [PARIS, NOW],
    ),
    Case(
        "deepseek-v3.1",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [PARIS],
    ),
    Case(
        "glm",
        "Hm.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n"
        "<arg_key>unit</arg_key>\n<arg_value>celsius</arg_value>\n</tool_call>\n"
        "<tool_call>clock\n</tool_call>",
        ["Hm.", ROME, NOW],
    ),
    Case(
        "glm-4.7",
        "<tool_call>write<arg_key>path</arg_key><arg_value>1</arg_value><arg_key>content</arg_key>"
        "<arg_value> {} </arg_value><arg_key>mode</arg_key><arg_value>7</arg_value></tool_call>",
        [("write", {"path": "1", "content": " {} ", "mode": 7})],
    ),
    Case(
        "minimax",
        '<minimax:tool_call>\n<invoke name="get_weather">\n'
        '<parameter name="city">Paris</parameter>\n'
        '</invoke>\n<invoke name="clock">\n</invoke>\n</minimax:tool_call>',
        [PARIS, NOW],
    ),
    Case(
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary"
        ' to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}',
        ["(Hm.)", PARIS],
    ),
    Case(
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        "\n Hello.",
        ["(Hm.)", "Hello."],
    ),
    Case(
        "harmony",
        "<|channel|>commentary<|message|>First I look.<|end|>"
        "<|start|>assistant<|channel|>commentary"
        " to=functions.clock <|constrain|>json<|message|>{}",
        ["First I look.", NOW],
    ),
]
