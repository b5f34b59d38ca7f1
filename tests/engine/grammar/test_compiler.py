"""Compiling: what hostile clients send is answered in time and kills nothing; what was compiled is kept."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.engine.generation import Grammar
from pensieve.engine.grammar import compiler as subject
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.errors import GrammarError
from tests.engine import grammar_cases as cases
from tests.engine.walking import END, allowed, generation, ids, vocabulary

# Two seconds of a processor's time at the most; here as many as a busy machine may make of them.
DEADLINE_S = 15
A = Grammar('start: "a"')


@pytest.fixture
def grammars() -> Iterator[GrammarCompiler]:
    kept = GrammarCompiler(vocabulary)
    yield kept
    kept.close()


def fails(grammars: GrammarCompiler, lark: str) -> str:
    error = grammars.prepare(Grammar(lark)).exception(DEADLINE_S)
    assert isinstance(error, GrammarError)
    return error.message


def test_hostile_grammars_are_compiled_or_refused_in_time(grammars: GrammarCompiler) -> None:
    started = time.monotonic()
    asked = [grammars.prepare(Grammar(lark)) for lark in cases.HOSTILE.values()]
    errors = [compiled.exception() for compiled in asked]
    assert len(errors) >= 60
    assert time.monotonic() - started < 2 * len(errors)
    assert all(error is None or isinstance(error, GrammarError) for error in errors)
    # Some are harmless, however they look.
    assert 20 < sum(error is not None for error in errors) < 60
    assert allowed(grammars.matcher(generation(A.lark))) == set(ids("a"))


def test_what_overflows_the_stack_ends_another_process(grammars: GrammarCompiler) -> None:
    assert "too much" in fails(grammars, cases.HOSTILE["chain of 10 000 references"])


def test_what_takes_its_whole_time_keeps_nobody_else_waiting(grammars: GrammarCompiler) -> None:
    endless = grammars.prepare(Grammar(cases.HOSTILE["5000 keys that may be"]))
    started = time.monotonic()
    while not endless.done():
        assert grammars.prepare(Grammar(f'start: "{time.monotonic()}"')).exception() is None
    assert isinstance(endless.exception(), GrammarError)
    assert time.monotonic() - started < DEADLINE_S


def test_an_error_says_what_is_wrong(grammars: GrammarCompiler) -> None:
    assert "nothing" in fails(grammars, "start: nothing")
    assert "regex" in fails(grammars, cases.HOSTILE["pattern: lookahead"])


def test_a_grammar_names_the_models_special_tokens_by_their_ids_alone(
    grammars: GrammarCompiler,
) -> None:
    assert grammars.prepare(Grammar(f"start: /a/ <[{END}]>")).exception() is None
    assert "unknown special token" in fails(grammars, "start: <tool_call> /a/")


def test_the_same_grammar_is_compiled_once(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    assert grammars.prepare(Grammar(A.lark)) is first
    first.result()
    assert grammars.prepare(A) is first


def test_one_that_is_used_up_is_compiled_again(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    first.result().is_spent = True
    second = grammars.prepare(A)
    assert second is not first
    second.result()
    assert grammars.prepare(A) is second


def test_the_last_ones_are_kept(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    others = [Grammar(f"start: {n}") for n in range(subject.MAX_COMPILED - 1)]
    for other in others:
        grammars.prepare(other).cancel()
    assert grammars.prepare(A) is first
    for other in others:
        grammars.prepare(Grammar(other.lark + " ")).cancel()
    assert grammars.prepare(A) is first
    grammars.prepare(Grammar("start: ")).cancel()
    assert len(grammars._kept) == subject.MAX_COMPILED


def test_a_model_whose_tokenizer_is_unknown_takes_no_grammars(tmp_path: Path) -> None:
    strange = tmp_path / "tokenizer.json"
    strange.write_text(json.dumps({"model": {"type": "Unheard-of"}}))
    for file in (strange, tmp_path / "missing.json"):
        grammars = GrammarCompiler.of(file)
        assert "tokenizer" in fails(grammars, A.lark)
        grammars.close()


def test_where_llguidance_does_not_load_a_grammar_fails_and_says_why(tmp_path: Path) -> None:
    """In a process of its own, which finds a library like the one that macOS 27 refuses."""
    (tmp_path / "llguidance").mkdir()
    refused = "dlopen(_lib.abi3.so): mis-aligned LINKEDIT string pool"
    (tmp_path / "llguidance" / "__init__.py").write_text(f"raise ImportError({refused!r})\n")
    program = """
from pathlib import Path
from pensieve.engine.generation import Grammar
from pensieve.engine.grammar.compiler import GrammarCompiler
grammars = GrammarCompiler.of(Path("tokenizer.json"))
print(repr(grammars.prepare(Grammar("start: /a/")).exception()))
grammars.close()
"""
    path = os.pathsep.join([str(tmp_path), str(Path(subject.__file__).parents[2])])
    said = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, check=True
    ).stdout.decode()
    assert said.startswith("GrammarError(")
    assert refused in said
    assert f"{sys.prefix}/bin/python -m pip install --force-reinstall" in said
