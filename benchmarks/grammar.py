"""Cost of grammars: s per vocabulary, ms per tool set, µs per token; or counts of valid calls.

usage: python -m benchmarks.grammar [--device cpu|gpu] tokenizer.json …
       python -m benchmarks.grammar --calls MODEL_FOLDER [--minutes 5]
The first measures each vocabulary with twelve tools like those of a coding agent. With --calls, the
model calls these tools at temperature 1 through the engine, and every call is checked with
jsonschema.
"""

# pyright: basic

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from pathlib import Path

import jsonschema
import mlx.core as mx
from tokenizers import Tokenizer

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.generation import Engine, Finished, Generation, Grammar, Sampling, Token
from pensieve.engine.grammar.compiled import CompiledGrammar, Matcher, Vocabulary, trial_compile
from pensieve.engine.grammar.mask import masked
from pensieve.settings.resolve import Device

GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}


def tool(*required: str, **properties: dict) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(*values: str) -> dict:
    return {"type": "string", "enum": list(values)}


def some(items: dict) -> dict:
    return {"type": "array", "items": items, "minItems": 1}


REPLACEMENT = tool("old_string", "new_string", old_string=TEXT, new_string=TEXT, replace_all=FLAG)
TOOLS = {
    "Bash": tool("command", command=TEXT, description=TEXT, timeout=COUNT, background=FLAG),
    "Read": tool("file_path", file_path=TEXT, offset=COUNT, limit=COUNT),
    "Write": tool("file_path", "content", file_path=TEXT, content=TEXT),
    "Edit": tool(
        "file_path", "old_string", "new_string", file_path=TEXT, **REPLACEMENT["properties"]
    ),
    "MultiEdit": tool("file_path", "edits", file_path=TEXT, edits=some(REPLACEMENT)),
    "Glob": tool("pattern", pattern=TEXT, path=TEXT),
    "Grep": tool(
        "pattern",
        pattern=TEXT,
        path=TEXT,
        glob=TEXT,
        output=one_of("content", "files", "count"),
        before=COUNT,
        after=COUNT,
        ignore_case=FLAG,
    ),
    "WebFetch": tool("url", "prompt", url={"type": "string", "format": "uri"}, prompt=TEXT),
    "WebSearch": tool("query", query={"type": "string", "minLength": 2}, domains=some(TEXT)),
    "TodoWrite": tool(
        "todos",
        todos=some(
            tool(
                "content",
                "status",
                content={"type": "string", "minLength": 1},
                status=one_of("pending", "in_progress", "completed"),
            )
        ),
    ),
    "NotebookEdit": tool(
        "notebook", "source", notebook=TEXT, source=TEXT, cell=one_of("code", "markdown")
    ),
    "Agent": tool("description", "prompt", description=TEXT, prompt=TEXT, kind=TEXT),
}  # fmt: skip
ANSWER = (
    "I'll look at where the tax is computed first, then write the plan down.\n<tool_call>\n"
    '{"name": "Edit", "arguments": {"file_path": "/home/me/shop/tax.py",'
    ' "old_string": "def tax(net):\\n    return net * 0.19\\n",'
    ' "new_string": "def tax(net: float, rate: float = 0.19) -> float:\\n'
    '    \\"Umsatzsteuer für Güter\\"\\n    return net * rate\\n",'
    ' "replace_all": false}}\n</tool_call>\nNow the plan:\n<tool_call>\n'
    '{"name": "TodoWrite", "arguments": {"todos": ['
    '{"content": "Run the tests", "status": "in_progress"},'
    ' {"content": "Look for other callers", "status": "pending"}]}}\n</tool_call>\nThat is all.'
)


def grammar(tools: dict, *, is_forced: bool) -> Grammar:
    names = [f"t{at}" for at in range(len(tools))]
    alternatives = " | ".join(names)
    rules = [
        f"{name}: %json {json.dumps({'x-guidance': GUIDANCE, **call_schema(*each)})}"
        for name, each in zip(names, tools.items(), strict=True)
    ]
    head = (
        [f"start: {alternatives}"]
        if is_forced
        else [
            "start: call* TEXT",
            "TEXT: /(.|\\n)*/",
            'head[lazy]: TEXT "<tool_call>"',
            f'call: head "\\n" ({alternatives}) "\\n</tool_call>"',
        ]
    )
    return Grammar("\n".join([*head, *rules]) + "\n")


def call_schema(name: str, arguments: dict) -> dict:
    return tool("name", "arguments", name={"const": name}, arguments=arguments)


def seconds(work, repeat: int = 1) -> float:
    times: list[float] = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def spread(times_s: list[float]) -> str:
    ordered = sorted(time_s * 1e6 for time_s in times_s)
    p95 = ordered[int(0.95 * len(ordered))]
    figures = statistics.mean(ordered), statistics.median(ordered), p95, ordered[-1]
    return " / ".join(f"{figure:.0f}" for figure in figures)


def measure(file: Path) -> dict[str, str]:
    """Return the times of one vocabulary by the rows of the table."""
    text = file.read_text(encoding="utf-8")
    build_s = seconds(lambda: Vocabulary(text))
    vocabulary, tokenizer = Vocabulary(text), Tokenizer.from_str(text)
    tools = grammar(TOOLS, is_forced=False)
    compiled = CompiledGrammar(vocabulary, tools)
    stop = vocabulary.tokenizer.eos_tokens[0]
    generation = Generation((1,), 1, frozenset({stop}), grammar=tools)
    trial_s = seconds(lambda: trial_compile(vocabulary, tools), 5)
    compile_s = seconds(lambda: CompiledGrammar(vocabulary, tools), 5)
    copy_s = seconds(lambda: Matcher(compiled, generation), 5)
    mask_s, advance_s, apply_s = follow(compiled, generation, tokenizer)
    sum_s = statistics.mean(map(sum, zip(mask_s, advance_s, apply_s, strict=True)))
    return {
        "tokens": f"{vocabulary.tokenizer.vocab_size}",
        "vocabulary built": f"{build_s:.2f} s",
        "trial in another process": f"{trial_s * 1e3:.0f} ms",
        "compiled": f"{compile_s * 1e3:.1f} ms",
        "copied for an answer": f"{copy_s * 1e3:.2f} ms",
        "mask, µs: mean / median / p95 / longest": spread(mask_s),
        "advance, µs": spread(advance_s),
        "apply to the logits, µs": spread(apply_s),
        "sum per token, ms": f"{sum_s * 1e3:.3f}",
    }


def follow(
    compiled: CompiledGrammar, generation: Generation, tokenizer: Tokenizer
) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of each token of the answer, with the lexer's cold cache."""
    matcher = Matcher(compiled, generation)
    logits = mx.zeros((1, compiled.vocabulary.tokenizer.vocab_size), dtype=mx.float16)
    mx.eval(masked(logits, matcher.allowed()))
    mask_s, advance_s, apply_s = [], [], []
    for token in tokenizer.encode(ANSWER, add_special_tokens=False).ids:
        started = time.perf_counter()
        allowed = matcher.allowed()
        computed = time.perf_counter()
        mx.eval(masked(logits, allowed))
        applied = time.perf_counter()
        assert allowed[token], f"{tokenizer.decode([token])!r} is not allowed"
        matcher.advance(token)
        advance_s.append(time.perf_counter() - applied)
        mask_s.append(computed - started)
        apply_s.append(applied - computed)
    return mask_s, advance_s, apply_s


def table(columns: list[dict[str, str]]) -> str:
    lines = [f"| {row} | {' | '.join(column[row] for column in columns)} |" for row in columns[0]]
    return "\n".join([lines[0], "|---" * (len(columns) + 1) + "|", *lines[1:]])


# Calls by a model


def bounded(schema):
    """Return a schema with limits, so that a model without a stop comes to an end."""
    if isinstance(schema, list):
        return [bounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: bounded(part) for key, part in schema.items()}
    if parts.get("type") == "string" and not parts.keys() & {"enum", "format"}:
        parts["maxLength"] = 40
    if parts.get("type") == "array":
        parts["maxItems"] = 2
    if parts.get("type") == "integer":
        parts["maximum"] = 100_000
    return parts


def check(text: str, tools: dict) -> None:
    call = json.loads(text)
    jsonschema.validate(call["arguments"], tools[call["name"]])


def prompt(tokenizer: Tokenizer, task: str) -> tuple[int, ...]:
    text = f"<|im_start|>user\nCall a tool, as JSON: {task}<|im_end|>\n<|im_start|>assistant\n"
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


TASKS = (
    "look for TODO in the sources",
    "write down three things to do",
    "read the file README.md",
    "replace tabs by spaces in main.c",
    "find out about the weather in Paris",
    "list the Python files",
)


async def calls(folder: Path, device: Device, minutes: float) -> Counter[str]:
    """Count outcomes of calls, eight at a time; every second grammar has one tool."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tools = {name: bounded(schema) for name, schema in TOOLS.items()}
    choices = [tools, *({name: schema} for name, schema in tools.items())]
    orders = itertools.count()
    counted: Counter[str] = Counter()
    async with running_engine(WorkerSpec(folder, device)) as engine:
        while engine.health.state != "ready":  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)
        until = time.monotonic() + 60 * minutes

        async def caller() -> None:
            while time.monotonic() < until:
                number = next(orders)
                allowed = choices[0] if number % 2 else choices[1 + number // 2 % len(tools)]
                task = TASKS[number % len(TASKS)]
                text, reason = await answer(engine, tokenizer, task, allowed)
                counted[reason] += 1
                if reason == "stop_token":
                    check(text, allowed)
                    counted[json.loads(text)["name"]] += 1

        await asyncio.gather(*(caller() for _ in range(8)))
    return counted


async def answer(engine: Engine, tokenizer: Tokenizer, task: str, tools: dict) -> tuple[str, str]:
    generation = Generation(
        prompt(tokenizer, task),
        max_tokens=400,
        stop_tokens=frozenset({tokenizer.token_to_id("<|im_end|>")}),
        sampling=Sampling(temperature=1.0),
        grammar=grammar(tools, is_forced=True),
    )
    tokens: list[int] = []
    async with engine.generate(generation) as events:
        async for event in events:
            if isinstance(event, Token):
                tokens.append(event.token_id)
            if isinstance(event, Finished):
                return tokenizer.decode(tokens), event.reason
    raise AssertionError("the answer did not finish")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tokenizers", nargs="*", type=Path)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--calls", type=Path, metavar="MODEL_FOLDER")
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    mx.set_default_device(mx.gpu if arguments.device == "gpu" else mx.cpu)
    if arguments.tokenizers:
        print(table([measure(file) for file in arguments.tokenizers]))
    if arguments.calls:
        counted = asyncio.run(calls(arguments.calls, arguments.device, arguments.minutes))
        finished, truncated = counted.pop("stop_token", 0), counted.pop("length", 0)
        print(f"{finished} calls, all valid; {truncated} truncated; {dict(counted)}")


if __name__ == "__main__":
    main()
