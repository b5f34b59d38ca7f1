"""Strategies for tools' schemas with a valid value each, as MCP servers write them."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Pair = tuple[dict[str, Any], Any]

NAMES = (
    *("a", "path", "n", "-A", "$.xgafv", "filter[id]", "@type", "a/b", "file path", "xml:lang"),
    *(
        "range(x)",
        "a,b",
        "it's",
        "a<b",
        "a=b",
        "x{y}",
        "",
        "%41",
        "%",
        'q"r',
        "a\u00a0b",
        "\u00a0",
        " x ",
    ),
    *("é", "</arg_key>", "<|im_end|>", "a>", "a\nb", "[ARGS]", "}", ")", "null", "1"),
)
TEXTS = (
    *(
        "",
        "x",
        "null",
        "true",
        "5",
        "-1.5",
        "1x",
        '"5"',
        '"x"',
        '"\\"5\\""',
        "[1]",
        '{"a": 1}',
        "{",
        '"',
    ),
    *(
        " 5 ",
        "\n",
        " x\n",
        "None",
        "é🙂",
        "\\",
        "\\n",
        "a, b)",
        "]}",
        "<b>",
        "a\nb",
        "'",
        "nul",
        "[",
        "NaN",
    ),
    *("a<|im_end|>b", "<|tool_call|>", "1e999", "\u2028"),
    *(
        "</parameter>",
        "a\n</parameter>\n</function>",
        "</arg_value>",
        '"</arg_value>"',
        '<|"|>',
        "<escape>x",
        "</invoke>",
    ),
)
MARKED = '<|"/>ax\n'
texts = st.sampled_from(TEXTS) | st.text(st.sampled_from('ax5 "\\{}[]:,<>/\n'), max_size=8)
numbers = st.integers(-(10**6), 10**6) | st.sampled_from([0.5, -1.25, 3.75e-5, 1e20])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    ),
    max_leaves=4,
)

# Definitions that any schema here may refer to; the last one is recursive.
DEFINITIONS: dict[str, Any] = {
    "Mode": {"type": "string", "enum": ["on", "5", "null"]},
    "Point": {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "label": {"type": ["string", "null"]}},
        "required": ["x"],
    },
    "Tree": {
        "type": "object",
        "properties": {
            "v": {"type": "string"},
            "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
        },
        "required": ["v"],
    },
}


def ordered(*keys: str) -> "Callable[[tuple[Any, ...]], dict[str, Any]]":
    """Properties in the order of the schema, which is the grammar's."""
    return lambda values: dict(zip(keys, values, strict=False))


trees = st.recursive(
    st.tuples(texts).map(ordered("v")),
    lambda inner: st.tuples(texts, st.lists(inner, max_size=2)).map(ordered("v", "kids")),
    max_leaves=3,
)
counts = st.integers(-9, 9)
REFERRED = {
    "Mode": st.sampled_from(DEFINITIONS["Mode"]["enum"]),
    "Point": (st.tuples(counts) | st.tuples(counts, st.none() | texts)).map(ordered("x", "label")),
    "Tree": trees,
}


def of(schema: dict[str, Any], taken: "st.SearchStrategy[Any]") -> "st.SearchStrategy[Pair]":
    return taken.map(lambda value: (schema, value))


scalars: "st.SearchStrategy[Pair]" = st.one_of(
    of({"type": "string"}, texts),
    of({"type": "string", "minLength": 2, "maxLength": 5}, st.text(MARKED, min_size=2, max_size=5)),
    of({"type": "string", "maxLength": 14}, texts.filter(lambda text: len(text) <= 14)),
    of({"type": "string", "minLength": 1}, texts.filter(bool)),
    of(
        {"type": "string", "pattern": "^[a-z]{1,3}(/[^0-9]+)?$"},
        st.sampled_from(["a", "abc", 'ab/x"y', "a/\n"]),
    ),
    of({"type": "string", "pattern": "x/?$|5"}, st.sampled_from(["x", "ax/", "1 5 2"])),
    of({"type": "string", "pattern": "[^5]"}, texts.filter(lambda text: text.strip("5"))),
    of({"type": "string", "pattern": "[$^]"}, st.sampled_from(["a$", "^", "a^b\n"])),
    of({"type": "integer"}, st.integers(-(10**9), 10**9)),
    of({"type": "number"}, numbers),
    of({"type": "boolean"}, st.booleans()),
    of({"type": "null"}, st.none()),
    of({"type": ["string", "null"]}, st.none() | texts),
    of({"type": ["string", "integer"]}, st.integers(-9, 99) | texts),
    of({"type": ["boolean", "null", "number"]}, st.none() | st.booleans() | numbers),
    of(
        {"enum": ["on", "off", 0, 1, None, True, "1", "null"]},
        st.sampled_from(["on", "off", 0, 1, None, True, "1", "null"]),
    ),
    of(
        {"type": "string", "enum": ["x", "x y", "5", "a<|im_end|>b"]},
        st.sampled_from(["x", "x y", "5", "a<|im_end|>b"]),
    ),
    of({"const": "UTC"}, st.just("UTC")),
    of(
        {"anyOf": [{"type": "string", "enum": ["on", "null"]}, {"type": "null"}]},
        st.sampled_from(["on", "null", None]),
    ),
    of({}, values),
    of({"description": "any JSON", "title": "T"}, values),
    of({"type": "array"}, st.lists(values, max_size=2)),
    of(
        {"type": ["object", "string"]},
        texts | st.dictionaries(st.sampled_from(NAMES), values, max_size=2),
    ),
    *(of({"$ref": f"#/$defs/{name}"}, taken) for name, taken in REFERRED.items()),
    *(
        of({"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}, taken | st.none())
        for name, taken in REFERRED.items()
    ),
    *(
        of({"allOf": [{"$ref": f"#/$defs/{name}"}], "description": "d"}, taken)
        for name, taken in REFERRED.items()
    ),
)


@st.composite
def lists(draw: st.DrawFn, inner: "st.SearchStrategy[Pair]") -> Pair:
    item, one = draw(inner)
    return {"type": "array", "items": item}, draw(st.sampled_from([[], [one], [one, one]]))


@st.composite
def choices(draw: st.DrawFn, inner: "st.SearchStrategy[Pair]") -> Pair:
    """One of several schemas, and a value of one of them."""
    pairs = draw(st.lists(inner, min_size=2, max_size=3))
    key = draw(st.sampled_from(["anyOf", "oneOf"]))
    return {key: [schema for schema, _ in pairs]}, draw(st.sampled_from([one for _, one in pairs]))


@st.composite
def objects(draw: st.DrawFn, inner: "st.SearchStrategy[Pair]") -> Pair:
    """Listed properties, some required, some of those unlisted; closed, open, or with a map."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    parts = {name: draw(inner) for name in names}
    must = [name for name in names if draw(st.booleans())]
    value = {name: parts[name][1] for name in names if name in must or draw(st.booleans())}
    schema = {"type": "object", "properties": {name: parts[name][0] for name in names}}
    further = draw(st.sampled_from(["closed", "silent", "open", "map", "required"]))
    others = st.sampled_from([name for name in NAMES if name not in names])
    if further == "closed":
        schema["additionalProperties"] = False
    elif further == "open":
        schema["additionalProperties"] = True
        value |= draw(st.dictionaries(others, values, max_size=2))
    elif further == "map":
        schema["additionalProperties"], one = draw(inner)
        value |= dict.fromkeys(draw(st.lists(others, unique=True, max_size=2)), one)
    elif further == "required":
        name = draw(others)
        must.append(name)
        value[name] = draw(values)
    return {**schema, "required": must}, value


@st.composite
def free_objects(draw: st.DrawFn) -> Pair:
    return draw(st.sampled_from([{"type": "object"}, {}])), draw(
        st.dictionaries(st.sampled_from(NAMES), values, max_size=3)
    )


@st.composite
def combined(draw: st.DrawFn, inner: "st.SearchStrategy[Pair]") -> Pair:
    """Objects that several parts of the schema define together."""
    first, second = draw(objects(inner)), draw(objects(inner))
    key = draw(st.sampled_from(["anyOf", "oneOf", "allOf", "base"]))
    if key in ("anyOf", "oneOf"):
        return {"type": "object", key: [first[0], second[0]]}, draw(
            st.sampled_from([first, second])
        )[1]
    properties = {
        name: part
        for name, part in second[0]["properties"].items()
        if name not in first[0]["properties"]
    }
    simple = {"type": "object", "properties": first[0]["properties"]}
    value = {k: v for k, v in first[1].items() if k in simple["properties"]}
    value |= {k: v for k, v in second[1].items() if k in properties}
    other = {"properties": properties}
    if key == "allOf":
        return {"allOf": [simple, other]}, value
    return {**simple, "anyOf": [other, {"properties": properties, "required": ["never"]}]}, value


inner_pairs: "st.SearchStrategy[Pair]" = st.recursive(
    scalars,
    lambda inner: lists(inner) | choices(inner) | objects(inner) | free_objects(),
    max_leaves=4,
)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """A tool's whole schema and an input."""
    schema, value = draw(
        st.one_of(objects(inner_pairs), objects(inner_pairs), combined(inner_pairs), free_objects())
    )
    if draw(st.integers(0, 4)) == 0:
        return {"$ref": "#/$defs/In", "$defs": {**DEFINITIONS, "In": schema}}, value
    return {**schema, "$defs": DEFINITIONS}, value
