"""Grammars for the text input of a tool, with texts that they admit and texts that they do not."""

from dataclasses import dataclass

from pensieve.dialects.dialect import InputGrammar


def lark(definition: str) -> InputGrammar:
    return InputGrammar("lark", definition)


def regex(definition: str) -> InputGrammar:
    return InputGrammar("regex", definition)


# Changes of files, as coding agents have their models write them.
PATCH = lark(
    r"""
start: begin change+ end
begin: "=== Begin" LF
end: "=== End" LF?

change: added | removed | changed   // one file each
added: "=== Add: " path LF ("+" /.*/ LF)+
removed: "=== Remove: " path LF
changed: "=== Change: " path LF move? part+
move: "=== Move to: " path LF
path: /.+/
part: ("@@" | "@@ " /.+/) LF line+ eof?
line: ("+" | "-" | " ") /.*/ LF -> line
eof: "=== End of file" LF

%import common.LF
"""
)
PATCHES = (
    "=== Begin\n=== Remove: a b.py\n=== End",
    '=== Begin\n=== Add: é.py\n+def f():\n+    return "\\\\n \\"x\\""\n+\n=== End\n',
    "=== Begin\n=== Change: a.py\n=== Move to: b/c.py\n@@ def f\n-x\t= 1\n+x = {2}\n \n@@\n+<y>\n"
    "=== End of file\n=== Remove: c\n=== End",
)


@dataclass(frozen=True)
class Example:
    grammar: InputGrammar
    admitted: tuple[str, ...]
    refused: tuple[str, ...]


WORDS = [f"word{at}" for at in range(90)]
EXAMPLES = {
    "patch": Example(
        PATCH,
        PATCHES,
        (
            "",
            PATCHES[0][:-1],
            PATCHES[0] + "x",
            PATCHES[0].replace("\n", " "),
            PATCHES[1].replace("+", "", 1),
            PATCHES[2].replace("@@ def f\n", ""),
        ),
    ),
    "regex": Example(regex("[A-Z]{2}-[0-9]{3}"), ("AB-123",), ("AB-12", "ab-123", "AB-1234", "")),
    "long regex": Example(
        regex(rf"^(?P<first>{'|'.join(WORDS)})[ \t\n]+(?i:a|b)*?(?:st|nd)?$"),
        ("word5 aBst", "word89\n\t"),
        ("word90 ", "word5", "word5 c", "xword5 a"),
    ),
    "escapes": Example(
        regex(r'"(?:[^"\\\x00-\x1f]|\\["\\/bn])*"[\t\n\r]\x{41}\u0042\/'),
        ('""\tAB/', '"é\\n\\""\nAB/', '"a/b"\rAB/'),
        ('"\tAB/', '"\\x"\tAB/', '""AB/', '"\n"\tAB/'),
    ),
    "any line": Example(regex(".+"), ("a", '"', "\\", "</b>", " ", "a\tb"), ("", "a\nb", "\n")),
    "any text": Example(regex("(?s:.*)"), ("", "a\n", "\n\n", "{}"), ()),
    "ignored": Example(
        lark(
            """
            start: "set" NAME "=" value ("," value)*
            value: ESCAPED_STRING | SIGNED_NUMBER | "a".."f" ~ 2 | [NAME] "!"
            NAME.2: ("x" | "y"i) DIGIT{1,3}
            %import common (ESCAPED_STRING, SIGNED_NUMBER)
            %import common.DIGIT
            %import common.WS -> SPACE
            %ignore SPACE
            %ignore /#[^\\n]*/
            """
        ),
        ('set x1="a"', "set\n Y12 = -1.5e3 , ab # c\n", 'set x1 = x2!, !, ""'),
        ("set x1234=1", "set x1=", "set x1=1,", "set x1=ag", "set x1=abc"),
    ),
}
# A sum in brackets. No terminal needs an escape.
SUM = Example(
    lark(
        """
        ?start: product (("+" | "-") product)*
        product: atom ("*" atom)*
        atom: NUMBER | "(" start ")" | "-" atom
        %import common.NUMBER
        %ignore " "
        """
    ),
    ("1", "(1 + 2.5)*-3", "((1))", " 1 -(2) "),
    ("", "1+", "(1", "1)", "()", "a"),
)
TREE = Example(
    lark('start: NAME | "<" start* ">"\nNAME: /[a-z]+/'),
    ("a", "<>", "<a<b<>>>"),
    ("", "<", "<a", "a>", "A"),
)
BLOCK = Example(
    lark('start: (line | "{" NL start "}" NL)+\nline: /[a-z]+/ NL\nNL: "\\n"'),
    ("a\n", "{\na\n{\nb\n}\n}\n"),
    ("", "a", "{\n}\n", "{\na\n"),
)
RECURSIVE = {"sum": SUM, "tree": TREE, "block": BLOCK}

# Each is refused, for the reason after it.
INVALID: dict[str, tuple[InputGrammar, str]] = {
    "look-ahead": (regex("a(?=b)"), r"groups with \(\?"),
    "look-behind": (regex("(?<!a)b"), r"groups with \(\?"),
    "backreference": (regex(r"(a)\1"), r"\\1 is not supported"),
    "word boundary": (regex(r"\bword\b"), r"\\b is not supported"),
    "inner anchor": (regex("a(^b|c$)"), "only at the ends"),
    "anchor after an escaped bar": (regex(r"\|^a"), "only at the ends"),
    "anchor after a group": (regex("(a)^b"), "only at the ends"),
    "backslash at the end": (regex("a\\"), "nothing after the last backslash"),
    "verbose flag": (regex("(?x) a b"), r"groups with \(\?"),
    "open group": (regex("(a"), "not closed"),
    "closed group": (regex("a)|(b"), "is closed that is not open"),
    "open class": (regex("[a"), "class of characters"),
    "class in a class": (regex("[[:alpha:]]"), "class of characters"),
    "set operation": (regex("[a-z&&b]"), "&&"),
    "nothing repeated": (regex("a|*"), "nothing that"),
    "possessive": (regex("a*+"), "nothing that"),
    "large count": (regex("a{1001}"), "count over 1000"),
    "huge count": (regex("a{99999999999999999999}"), "count over 1000"),
    "no minimum": (regex("a{,5}"), "no minimum"),
    "deep groups": (regex("(" * 65 + ")" * 65), "nested more than 64"),
    "long": (regex("a" * 32_769), "more than 32768"),
    "long lark": (lark("start: " + "a" * 32_768), "more than 32768"),
    "nothing": (lark(""), "start is not defined"),
    "no start": (lark('a: "x"'), "start is not defined"),
    "undefined": (lark("start: NOWHERE"), "NOWHERE is not defined"),
    "twice": (lark('start: "a"\nstart: "b"'), "line 2: start is defined twice"),
    "unknown import": (lark("start: A\n%import common.A"), "line 2: `common` has no terminal A"),
    "import of a file": (lark("start: A\n%import .b.A"), "line 2: only Lark's `common`"),
    "import of another grammar": (lark("%import python.NAME"), "line 1: only Lark's `common`"),
    "declare": (lark("%declare A\nstart: A"), "line 1: %declare is not supported"),
    "extension": (lark('start: %json {"type": "string"}'), "line 1: expected the end of the line"),
    "nested lark": (lark("start: @other"), "line 1: unexpected character '@'"),
    "special token": (lark("start: <|im_end|>"), "line 1: unexpected character '<'"),
    "bytes": (lark('start: b"x"'), "b is not defined"),
    "template": (lark('start: list{"a"}\nlist{x}: x'), "line 1: expected a number"),
    "template's definition": (lark('l{x}: x\nstart: "a"'), "line 1: templates"),
    "conjunction": (lark("start: A\nA: /a/ & /b/"), "line 2: unexpected character '&'"),
    "recursive terminal": (lark('start: A\nA: "(" A? ")"'), "a terminal contains itself"),
    "terminal of rules": (lark('start: A\nA: b\nb: "x"'), "the terminal A refers to a rule"),
    "ignored rule": (lark('start: "a"\n%ignore b\nb: " "'), "%ignore refers to a rule"),
    "look-ahead in a line": (lark("start: A\nA: /a(?=b)/"), r"line 2: groups with \(\?"),
    "flags": (lark("start: /a/x"), "line 1: only the flags"),
    "escape": (lark('start: "\\q"'), r"line 1: \\q"),
    "range": (lark('start: "a".."bc"'), "line 1: a range"),
    "count": (lark('start: "a" ~ 2000'), "line 1: a count is over 1000"),
    "deep brackets": (lark("start: " + "(" * 60 + '"a"' + ")" * 60), "nested more than 48"),
    "doubling": (
        lark("start: a20\na0: /aaaaaaaa/\n" + "\n".join(f"a{n + 1}: a{n} a{n}" for n in range(20))),
        "too large without its names",
    ),
    "many rules": (
        lark('start: "a"\n' + "\n".join(f'r{at}: "b"' for at in range(1_001))),
        "more than 1000 rules",
    ),
    "many large rules": (
        lark(
            f"start: r500\nr0: /{'a' * 9_000}/\n"
            + "\n".join(f'r{at + 1}: "b" r{at}' for at in range(500))
        ),
        "too large without its names",
    ),
    "no rule": (lark("+"), "line 1: expected a rule"),
    "unclosed text": (lark('start: "a'), "line 1: unexpected character"),
    "unclosed brackets": (lark('start: ("a"'), r"line 1: expected '\)'"),
}

# Are read, but may cost too much, or admit nothing.
HOSTILE: dict[str, InputGrammar] = {
    "nested plus": regex("(a+)+b"),
    "many dots": regex("(?s:.*.*.*.*.*.*.*.*)x"),
    "counted four times": regex("((((a{1,100}){1,100}){1,100}){1,100})"),
    "thousand gaps": regex("(.{0,1000}x){1000}"),
    "remembers 1000": regex("(?s:.*)a(?s:.){1000}"),
    "letters": regex(r"\p{L}{1,1000}"),
    "unknown letters": regex(r"\p{Zebra}"),
    "no character": regex(r"\u{110000}"),
    "backward range": regex("[z-a]"),
    "long": regex("ab?" * 10_000),
    "words": regex("|".join(f"w{n}x{n * 7919}" for n in range(2_000))),
    "nothing at all": regex(r"[^\w\W]"),
    "left recursion": lark('start: start "a" | "a"'),
    "left recursion for ever": lark("start: start"),
    "only itself": lark('start: "a" start'),
    "ambiguous": lark('start: start start start | "a" | ""'),
    "empty in a star": lark("start: (a*)* start? \na: /x*/"),
    "palindromes": lark('start: "a" start "a" | "b" start "b" | ""'),
    "ignores anything": lark('start: "a" start?\n%ignore /(?s:.)*/'),
    "deep recursion": lark("start: " + "(" * 40 + '"a" start' + ")?" * 40),
    "chain": lark("start: r900\nr0: /x/\n" + "\n".join(f"r{n + 1}: r{n}" for n in range(900))),
    "recursive chain": lark(
        "start: r900\nr0: /x/ start?\n" + "\n".join(f"r{n + 1}: r{n}" for n in range(900))
    ),
    "all depend on all": lark(
        "start: r0\n"
        + "\n".join(f"r{n}: /x{n}/ ({'|'.join(f'r{m}' for m in range(60))})?" for n in range(60))
    ),
    "thousand times a thousand": lark('start: ("a" start? "b") ~ 1000\na: start ~ 1000'),
}
