"""Mutation testing: change one small place at a time and print changes that no test notices.

usage: packaging/mutants.py "MODULE.py or FOLDER …" "TESTS and further arguments of pytest"
Tests are collected once. A change inside a function is applied in a forked process, which runs the
tests that call the function until one fails. A change that takes effect at import, or in a function
that runs at import, is tried in a process that imports everything again.
(mutmut 3.8 cannot reselect tests whose parameters are texts with quotes and line breaks.)
"""

import ast
import contextlib
import copy
import gc
import io
import json
import os
import resource
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 2  # CPU time, like all times here
IMPORT_TIMEOUT_S = 180
MEMORY_BYTES = 6 * 2**30
PYTEST = (
    *("-qx", "-n0", "--hypothesis-seed=0", "-p", "no:cacheprovider", "-p", "no:faulthandler"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
OPERATORS = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv)),
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SWAPS = {**dict(OPERATORS), **{new: old for old, new in OPERATORS}}
# What an emptied function returns, by its annotation; None for others. A generator yields nothing.
EMPTY = {
    "bool": ("False", "True"),
    "str": ("''",),
    "int": ("0",),
    **dict.fromkeys(("list", "tuple", "Sequence"), ("[]",)),
    "Iterator": ("iter(())",),
    **dict.fromkeys(("dict", "Mapping"), ("{}",)),
    "frozenset": ("frozenset()",),
}


class FunctionKey(NamedTuple):
    path: str
    name: str
    line: int


@dataclass
class Change:
    """One change of a module."""

    path: str
    text: str
    code: CodeType  # of the whole changed module
    function: FunctionKey | None  # the function that contains the change


@dataclass
class Outcome:
    """The counts of one module."""

    tried: int = 0
    survived: int = 0


# --- Changes


def variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - a table
    """Yield replacements of `node`."""
    match node:
        case ast.Compare(left, [op], [right]) if type(op) in SWAPS:
            yield ast.Compare(left, [SWAPS[type(op)]()], [right])
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Constant):
                yield ast.Compare(left, [op], [ast.Constant(right.value[:-1])])
        case ast.BoolOp(op, values):
            yield ast.BoolOp(SWAPS[type(op)](), values)
        case ast.BinOp(left, op, right) if type(op) in SWAPS:
            yield ast.BinOp(left, SWAPS[type(op)](), right)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(str(value)):
            yield ast.Constant(f"{value}?")
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value) if value and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call()) | ast.AugAssign():
            yield ast.Pass()
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from emptied(node)
        case _:
            pass


def emptied(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Yield the function, returning at once. Its statements stay: it may be a generator."""
    annotation = ast.unparse(function.returns).split("[")[0] if function.returns else ""
    for value in EMPTY.get(annotation, ("None",)):
        changed = copy.copy(function)
        changed.body = [ast.Return(ast.parse(value, mode="eval").body), *function.body]
        yield changed


class Place(NamedTuple):
    """A position in the tree."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST
    function: ast.AST | None  # the outermost function around it, whose code a change replaces

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def places(parent: ast.AST, function: ast.AST | None = None) -> Iterator[Place]:
    if function is None and isinstance(parent, FUNCTIONS):
        function = parent
    for name, value in ast.iter_fields(parent):
        if name in {"decorator_list", "annotation", "returns"}:
            continue
        around = function if name == "body" or function is not parent else None
        is_list = isinstance(value, list)
        for index, node in enumerate(value if is_list else [value]):
            if isinstance(node, ast.AST) and not is_irrelevant(parent, node):
                outermost = node if around is None and isinstance(node, FUNCTIONS) else around
                yield Place(parent, name, index if is_list else None, node, outermost)
                yield from places(node, around)


def is_irrelevant(parent: ast.AST, node: ast.AST) -> bool:
    """Return whether only people or type checkers read it, or tests take it from the module."""
    match parent, node:
        case _, (
            ast.Assert()
            | ast.Subscript(ast.Name("Literal" | "Callable"))
            | ast.Expr(ast.Call(ast.Name("assert_never")))
            | ast.FunctionDef(body=[ast.Expr(ast.Constant())])
            | ast.ClassDef(bases=[ast.Name("Protocol")])
        ):
            return True
        case ast.Expr() | ast.JoinedStr() | ast.FormattedValue(), ast.Constant() | ast.JoinedStr():
            return True
        case ast.Raise(), ast.Call():  # an error message
            return True
        case ast.Call(
            ast.Attribute(ast.Name("_log" | "logging" | "re")) | ast.Name("cast" | "TypeVar")
        ), ast.Constant():
            return True
        case ast.Module(), ast.Assign([ast.Name()], ast.Constant(int() | float())):  # a limit
            return True
        case ast.Compare(ops=[ast.In() | ast.NotIn()]), ast.Constant():  # see `variants`
            return True
    return False


def changes(path: str) -> Iterator[Change]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    names = {id(node): name for node, name in qualified(tree)}
    for place in list(places(tree)):
        for variant in variants(place.node):
            ast.copy_location(variant, place.node)
            place.put(ast.fix_missing_locations(variant))
            old, new = (first_words(each) for each in (place.node, variant))
            line = getattr(place.node, "lineno", 0)
            function = place.function
            key = function and FunctionKey(path, names[id(function)], first_line(function))
            text = f"{Path(path).relative_to(ROOT)}:{line}: {old}  →  {new}"
            yield Change(path, text, compile(tree, path, "exec"), key)
            place.put(place.node)


def first_words(node: ast.AST) -> str:
    match node:
        case ast.FunctionDef(name, body=body) | ast.AsyncFunctionDef(name, body=body):
            return f"{name}: {first_words(body[0])}"
    return ast.unparse(node).split("\n")[0]


def qualified(node: ast.AST, prefix: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield functions and methods with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from qualified(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, prefix + child.name
        else:
            yield from qualified(child, prefix)


def first_line(function: ast.AST) -> int:
    decorators = getattr(function, "decorator_list", [])
    return min([getattr(function, "lineno", 0), *(each.lineno for each in decorators)])


def key_of(code: CodeType) -> FunctionKey:
    return FunctionKey(code.co_filename, code.co_qualname, code.co_firstlineno)


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


# --- Trials


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a forked process; return its result, or None if it fails or dies."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fork in a process with threads
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


def pytest_main(arguments: Sequence[str], *plugins: object) -> int:
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        return int(pytest.main([*PYTEST, *arguments], plugins))


class Loader(SourceFileLoader):
    """Load one module changed."""

    def __init__(self, change: Change) -> None:
        name = ".".join(Path(change.path).relative_to(ROOT).with_suffix("").parts)
        super().__init__(name, change.path)
        self._code = change.code

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self.name:
            return None
        return ModuleSpec(name, self, origin=self.path)


def survives_import(change: Change, arguments: Sequence[str]) -> bool:
    """Return whether all tests pass in a process that imports the changed module."""

    def work() -> bool:
        signal.setitimer(signal.ITIMER_PROF, IMPORT_TIMEOUT_S)
        sys.meta_path.insert(0, Loader(change))
        return pytest_main(arguments) == 0

    return in_child(work) or False


class Calls:
    """Record which functions of the modules are called."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self.keys: set[FunctionKey] = set()

    def __enter__(self) -> "Calls":
        sys.setprofile(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _record(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in self._paths:
            self.keys.add(key_of(frame.f_code))


class Session:
    """A pytest plugin that runs the collected tests once for each change, each time in a child."""

    def __init__(self, paths: Sequence[str], report: Callable[[str], None]) -> None:
        self._paths = paths
        self._report = report
        self._items: list[pytest.Item] = []
        self._callers: dict[FunctionKey, list[tuple[float, int]]] = {}
        self._at_import = Calls(paths)
        self.survivors: list[int] = []
        self.undecided: list[int] = []  # only a changed import can decide

    def pytest_collection(self) -> None:
        self._at_import.__enter__()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._at_import.__exit__()
        self._items = session.items
        for index, item in enumerate(self._items):
            result = in_child(lambda item=item: self._calls_of(item))
            if result is None:
                self._report(f"{item.nodeid} fails without any change.")
                os._exit(1)
            duration, keys = result
            for key in keys:
                self._callers.setdefault(FunctionKey(*key), []).append((duration, index))
        functions = self._functions()
        for number, change in enumerate(one for path in self._paths for one in changes(path)):
            self._try(number, change, functions.get(change.function, []))
        return True

    def _try(self, number: int, change: Change, functions: Sequence[FunctionType]) -> None:
        if not functions:
            self.undecided.append(number)
        elif self._survives(change, functions):
            if change.function in self._at_import.keys:
                self.undecided.append(number)
            else:
                self.survivors.append(number)
                self._report(change.text)

    def _functions(self) -> dict[FunctionKey | None, list[FunctionType]]:
        functions: dict[FunctionKey | None, list[FunctionType]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType) and one.__code__.co_filename in self._paths:
                functions.setdefault(key_of(one.__code__), []).append(one)
        return functions

    def _calls_of(self, item: pytest.Item) -> tuple[float, list[FunctionKey]] | None:
        """Return a test's CPU time and the functions that it calls; None if it fails."""
        begun_at = time.process_time()
        with Calls(self._paths) as calls:
            if not passes(item, IMPORT_TIMEOUT_S):
                return None
        return time.process_time() - begun_at, list(calls.keys)

    def _survives(self, change: Change, functions: Sequence[FunctionType]) -> bool:
        callers = sorted(self._callers.get(change.function, []))
        new = {key_of(code): code for code in codes(change.code)}[change.function]

        def work() -> bool:
            for function in functions:
                function.__code__ = new
            return all(passes(self._items[index], duration) for duration, index in callers)

        return in_child(work) or False


def passes(item: pytest.Item, usual_s: float) -> bool:
    """Return whether a test passes. If it takes far longer than usual, the process ends."""
    signal.setitimer(signal.ITIMER_PROF, TIMEOUT_S + 2 * usual_s)
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def main(modules: str, arguments: Sequence[str]) -> None:
    hypothesis.settings.register_profile(
        "mutants", database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutants")
    paths = [str(path) for name in modules.split() for path in modules_in(ROOT / name)]
    survivors, undecided = map(set, try_in_functions(paths, arguments))
    outcomes = {path: Outcome() for path in paths}
    for number, change in enumerate(one for path in paths for one in changes(path)):
        outcome = outcomes[change.path]
        outcome.tried += 1
        if number in undecided and survives_import(change, arguments):
            survivors.add(number)
            print(change.text, flush=True)
        outcome.survived += number in survivors
    for path, outcome in outcomes.items():
        name = Path(path).relative_to(ROOT)
        print(f"{name}: {outcome.survived} of {outcome.tried} changes were not noticed.")


def modules_in(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def try_in_functions(paths: Sequence[str], arguments: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the numbers of the survivors, and of changes that only an import can decide."""
    out = os.fdopen(os.dup(1), "w")  # pytest captures the other one
    session = Session(paths, lambda text: print(text, file=out, flush=True))

    def work() -> tuple[list[int], list[int]]:
        pytest_main(arguments, session)
        return session.survivors, session.undecided

    return in_child(work) or sys.exit("The tests fail without any change.")


if __name__ == "__main__":
    main(sys.argv[1], shlex.split(sys.argv[2]))
