"""Change a module in one small place at a time, and print each change that its tests do not notice.

Works in a copy of the checkout. usage: packaging/mutants.py MODULE.py TESTS [SECONDS [FIRST]]
SECONDS bounds the run; FIRST is the number of the change to begin with, to go on after a bound.
mutmut 3.8 cannot select tests again whose parameters are texts with quotes and line breaks.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTANT_TIMEOUT_S = 60
OPERATORS = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv)),
)
SWAPS = {**dict(OPERATORS), **{new: old for old, new in OPERATORS}}


def variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - a table
    """What may stand in the place of `node`."""
    match node:
        case ast.Compare(left, [op], [right]) if type(op) in SWAPS:
            yield ast.Compare(left, [SWAPS[type(op)]()], [right])
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
        case _:
            pass


def mutants(tree: ast.Module) -> Iterator[str]:
    """Change `tree` for the time of each step, in one place; where, and what into what."""
    decorators = {part for node in ast.walk(tree) for part in decorator_parts(node)}
    for parent in [node for node in ast.walk(tree) if node not in decorators]:
        for field, value in ast.iter_fields(parent):
            is_list = isinstance(value, list)
            for index, node in enumerate(value if is_list else [value]):
                if not isinstance(node, ast.AST) or is_text_alone(parent, node):
                    continue
                for variant in variants(node):
                    ast.copy_location(variant, node)
                    old, new = (ast.unparse(each).split("\n")[0] for each in (node, variant))
                    replace(parent, field, index if is_list else None, variant)
                    yield f"line {getattr(node, 'lineno', 0)}: {old}  →  {new}"
                    replace(parent, field, index if is_list else None, node)


def decorator_parts(node: ast.AST) -> Iterator[ast.AST]:
    for decorator in getattr(node, "decorator_list", ()):
        yield from ast.walk(decorator)


def is_text_alone(parent: ast.AST, node: ast.AST) -> bool:
    """A docstring; or the text in an f-string, which cannot be changed by itself."""
    return isinstance(parent, ast.Expr | ast.JoinedStr) and isinstance(node, ast.Constant)


def replace(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def is_noticed(copy: Path, tests: str) -> bool:
    """Whether a test fails, or none ends in time."""
    command = [sys.executable, "-m", "pytest", tests, "-qx", "-n0", "--hypothesis-seed=0"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=MUTANT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main(module: str, tests: str, limit_s: float, first: int) -> None:
    end_at = time.monotonic() + limit_s
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("pensieve", "tests"):
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
        shutil.copy(ROOT / "pyproject.toml", copy)
        if is_noticed(copy, tests):
            sys.exit(f"{tests} fails without any change.")
        tree = ast.parse((copy / module).read_text(encoding="utf-8"))
        tried = survived = 0
        for number, change in enumerate(mutants(tree)):
            if number < first:
                continue
            if time.monotonic() > end_at:
                print(f"The time is up: go on with change {number}.")
                break
            (copy / module).write_text(ast.unparse(tree), encoding="utf-8")
            tried += 1
            if not is_noticed(copy, tests):
                survived += 1
                print(f"{module}, {change}", flush=True)
    print(f"{survived} of {tried} changes were not noticed.")


if __name__ == "__main__":
    given = sys.argv[3:]
    main(*sys.argv[1:3], float(given[0] if given else 3600), int(given[1] if given[1:] else 0))
