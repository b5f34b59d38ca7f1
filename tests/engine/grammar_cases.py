"""Grammars for tests: schemas of tools, answers around calls of them, and hostile grammars."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

# As the front end sets it: one way to space JSON, and unsupported keywords are ignored.
GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}


def short(**more: Any) -> Schema:
    return {"type": "string", "maxLength": 12, **more}


def closed(required: Sequence[str] = (), **properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


COUNT = {"type": "integer", "minimum": 0, "maximum": 999}
FLAG = {"type": "boolean"}

# Ten sets of tools by name. Strings and lists are bounded, so that a model with random weights
# finishes.
TOOL_SETS: dict[str, dict[str, Schema]] = {
    "one": {"Read": closed(["file_path"], file_path=short(), offset=COUNT, limit=COUNT)},
    "files": {
        "Read": closed(["file_path"], file_path=short(), offset=COUNT),
        "Write": closed(["file_path", "content"], file_path=short(), content=short()),
        "Edit": closed(
            ["file_path", "old_string", "new_string"],
            file_path=short(),
            old_string=short(),
            new_string=short(),
            replace_all=FLAG,
        ),
    },
    "enums": {
        "set_light": closed(
            ["room", "state"],
            room={"enum": ["kitchen", "living room", "Küche", "厨房"]},
            state={"enum": ["on", "off", 0, 1, None, True]},
        )
    },
    "nothing": {
        "ping": closed(),
        "now": closed(zone={"const": "UTC"}),
    },
    "lists": {
        "todo": closed(
            ["todos"],
            todos={
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": closed(
                    ["content", "status"],
                    content=short(minLength=1),
                    status={"enum": ["pending", "in_progress", "completed"]},
                ),
            },
        )
    },
    "deep": {
        "a": closed(
            ["b"],
            b=closed(["c"], c=closed(["d"], d=closed(["e"], e=closed(["f"], f=short())))),
        )
    },
    "tree": {
        "plant": {
            "$defs": {
                "node": closed(
                    ["value"],
                    value=COUNT,
                    children={
                        "type": "array",
                        "maxItems": 1,
                        "items": {"$ref": "#/$defs/node"},
                    },
                )
            },
            "type": "object",
            "properties": {"root": {"$ref": "#/$defs/node"}},
            "required": ["root"],
            "additionalProperties": False,
        }
    },
    "numbers": {
        "compute": closed(
            ["x", "y", "n"],
            x={"type": "number", "minimum": -10, "maximum": 10, "multipleOf": 0.25},
            y={"type": "number", "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.125},
            n={"type": "integer", "minimum": 1, "maximum": 64, "multipleOf": 4},
        )
    },
    "choices": {
        "find": closed(
            ["query"],
            query={"anyOf": [short(), COUNT, {"type": "null"}, closed(["id"], id=COUNT)]},
            kind={"type": ["string", "null"], "maxLength": 5},
        )
    },
    "patterns": {
        "book": closed(
            ["day", "code", "mail"],
            day={"type": "string", "format": "date"},
            code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
            mail={"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.org$"},
        )
    },
}


def json_of(schema: Schema) -> str:
    """Return the right side of a grammar rule."""
    return f"%json {json.dumps({'x-guidance': GUIDANCE, **schema})}"


def rules(tools: Mapping[str, Schema]) -> tuple[str, str]:
    """Return an expression for a call of any tool, and the rules that it needs."""
    names = [f"t{at}" for at in range(len(tools))]
    bodies = [
        f"{name}: {json_of(_call(tool, schema))}"
        for name, (tool, schema) in zip(names, tools.items(), strict=True)
    ]
    return f"({' | '.join(names)})", "\n".join(bodies)


def _call(tool: str, schema: Schema) -> Schema:
    """Move definitions to the root, from where references resolve."""
    whole = closed(["name", "arguments"], name={"const": tool}, arguments=schema)
    return {**whole, "$defs": schema["$defs"]} if "$defs" in schema else whole


def forced(tools: Mapping[str, Schema]) -> str:
    """Exactly one call."""
    call, bodies = rules(tools)
    return f"start: {call}\n{bodies}\n"


def in_text(tools: Mapping[str, Schema], repeat: str = "*", free: str = "/(.|\\n)*/") -> str:
    """Text with calls in it. repeat: "*", "?" or "+" of them."""
    call, bodies = rules(tools)
    return (
        f"start: call{repeat} TEXT\nTEXT: {free}\n"
        f'head[lazy]: TEXT "<call>"\ncall: head {call} "</call>"\n{bodies}\n'
    )


# What hostile or careless clients send.


def hostile(schema: object) -> str:
    return f"start: answer\nanswer: %json {json.dumps(schema)}\n"


def _nested(depth: int, *, is_object: bool) -> str:
    """Nest deeper than Python's own encoder can."""
    opening, closing = (
        ('{"type":"object","properties":{"a":', '},"required":["a"]}')
        if is_object
        else ('{"type":"array","items":', "}")
    )
    return f"start: answer\nanswer: %json {opening * depth}{{}}{closing * depth}\n"


def _chain(length: int, link: str) -> str:
    """Definitions that each refer to the next."""
    parts: dict[str, Any] = {}
    for at in range(length):
        reference = {"$ref": f"#/$defs/d{at + 1}"}
        parts[f"d{at}"] = {
            "ref": reference,
            "allOf": {"allOf": [reference, {"type": "object"}]},
            "anyOf": {"anyOf": [reference, {"type": "null"}]},
            "twice": closed(["a", "b"], a=reference, b=reference),
            "property": closed(["a"], a=reference),
        }[link]
    parts[f"d{length}"] = {"type": "object"}
    return hostile({"$defs": parts, "$ref": "#/$defs/d0"})


PATTERNS = {
    "nested plus": "(a+)+$",
    "nested plus, then b": "^(a+)+b$",
    "overlapping": "^(a|aa)+$",
    "empty in star": "^(a|a?)*$",
    "many dots": "^(.*.*.*.*.*.*.*)x$",
    "counted four times": "^((((a{1,100}){1,100}){1,100}){1,100})$",
    "a million": "^a{1000000}$",
    "thousand gaps": "^(.{0,1000}x){1000}$",
    "remembers 20": "^(a|b)*a(a|b){20}$",
    "remembers 1000": "^.*a.{1000}$",
    "letters": "^\\p{L}{1,5000}$",
    "two thousand perhaps": "^" + "[a-z]?" * 2000 + "a" * 2000 + "$",
    "two thousand words": "^(" + "|".join(f"w{n}x{n * 7919}" for n in range(2000)) + ")+$",
    "lookahead": "^(?=.*a)(?=.*b).*$",
    "back reference": "^(a+)\\1$",
    "unclosed": "^((((((a",
    "parentheses": "^" + "(" * 5000 + "a" + ")?" * 5000 + "$",
    "long": "^" + "ab?" * 100_000 + "$",
}

HOSTILE: dict[str, str] = {
    **{
        f"pattern: {name}": hostile({"type": "string", "pattern": p})
        for name, p in PATTERNS.items()
    },
    "string of at most 1e9": hostile({"type": "string", "maxLength": 10**9}),
    "string of at least 1e9": hostile({"type": "string", "minLength": 10**9}),
    "array of at most 1e9": hostile({"type": "array", "items": {}, "maxItems": 10**9}),
    "array of at least 1e9": hostile({"type": "array", "items": {}, "minItems": 10**9}),
    "array of objects": hostile(
        {"type": "array", "minItems": 10**4, "items": closed(**{f"k{n}": {} for n in range(20)})}
    ),
    "object of at most 1e9": hostile({"type": "object", "maxProperties": 10**9}),
    "integer of 300 digits": hostile({"type": "integer", "maximum": 10**300}),
    "multiple of a prime": hostile({"type": "integer", "multipleOf": 999_999_937}),
    "multiple of nearly nothing": hostile({"type": "number", "multipleOf": 1e-30}),
    "number of 300 digits": hostile({"type": "number", "minimum": 1e-300, "maximum": 1e300}),
    "enum of 10 000": hostile({"enum": [f"value {n}" for n in range(10_000)]}),
    "enum of 70 000": hostile({"enum": [f"v{n}" for n in range(70_000)]}),
    "enum of one of 200 000": hostile({"enum": ["x" * 200_000]}),
    "enum of objects": hostile({"enum": [{"a": [n] * 50} for n in range(2000)]}),
    "const, deep": hostile({"const": json.loads("[" * 200 + "]" * 200)}),
    "30 objects deep": _nested(30, is_object=True),
    "200 objects deep": _nested(200, is_object=True),
    "20 000 arrays deep": _nested(20_000, is_object=False),
    "5000 keys": hostile(
        closed([f"key_{n}" for n in range(5000)], **{f"key_{n}": {} for n in range(5000)})
    ),
    "5000 keys that may be": hostile(closed(**{f"key_{n}": {} for n in range(5000)})),
    "2000 alternatives": hostile(
        {"anyOf": [closed([f"k{n}"], **{f"k{n}": COUNT}) for n in range(2000)]}
    ),
    "all of any of": hostile(
        {
            "allOf": [
                {"anyOf": [closed(**{f"p{i}_{j}": COUNT}) for j in range(6)]} for i in range(12)
            ]
        }
    ),
    "one of 100": hostile({"oneOf": [{"properties": {"a": {}, f"b{n}": {}}} for n in range(100)]}),
    "refers to itself": hostile({"$ref": "#"}),
    "refers in a circle": hostile(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    ),
    "refers in a circle, by choice": hostile(
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 2}}, "$ref": "#/$defs/a"}
    ),
    "refers in a circle, by all": hostile(
        {
            "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}},
            "$ref": "#/$defs/a",
        }
    ),
    "refers elsewhere": hostile({"$ref": "https://example.com/schema"}),
    "refers to nothing": hostile({"$ref": "#/$defs/nothing"}),
    "doubled 30 times": _chain(30, "twice"),
    "chain of 1000 properties": _chain(1000, "property"),
    "chain of 10 000 references": _chain(10_000, "ref"),
    "chain of 10 000 choices": _chain(10_000, "anyOf"),
    "chain of 10 000 conjunctions": _chain(10_000, "allOf"),
    "patterns of keys": hostile(
        {"patternProperties": {f"^k{n}.*x{{0,50}}$": {} for n in range(200)}}
    ),
    "key of 100 000": hostile(closed(["k" * 100_000], **{"k" * 100_000: {}})),
    "unsupported keywords": hostile(
        {"unevaluatedProperties": False, "if": {}, "then": {}, "not": {}}
    ),
    "false": hostile(False),
    "no type": hostile({"type": "nothing"}),
    "no JSON": 'start: answer\nanswer: %json {"type":',
    "no grammar": "\x00\xff%%%",
    "empty grammar": "",
    "unknown rule": "start: nothing",
    "unknown special token": "start: <|nobody|>",
    "left recursion for ever": "start: start",
    "a million x": 'start: a{1000000}\na: "x"\n',
    "counted thrice": "start: A\nA: B{1000}\nB: C{1000}\nC: /x/{1000}\n",
    "20 000 rules": "start: "
    + " | ".join(f"r{n}" for n in range(20_000))
    + "\n"
    + "\n".join(f'r{n}: "a{n}" /x+/' for n in range(20_000)),
    "rules in a row": "start: r0\n"
    + "\n".join(f"r{n}: r{n + 1}" for n in range(10_000))
    + '\nr10000: "x"',
    "too long": 'start: "' + "x" * (1 << 20) + '"',
}
