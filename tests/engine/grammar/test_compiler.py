"""Tests compiling: hostile grammars end in time and crash nothing; compiled ones are cached."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.dialects.dialect import Dialect, ToolSpec
from pensieve.dialects.families import hermes, qwen_coder
from pensieve.dialects.grammar.answer_grammar import CallLimits, answer_grammar
from pensieve.dialects.grammar.text_grammar import text_grammar_of
from pensieve.engine.generation import Grammar
from pensieve.engine.grammar import compiler as subject
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.errors import GrammarError
from tests.dialects import text_grammars
from tests.engine import grammar_cases as cases
from tests.engine.walking import END, allowed, generation, ids, vocabulary
from tests.support.programs import run_program

# At most two CPU seconds; here the wall clock time on a busy machine.
DEADLINE_S = 15
A = Grammar('start: "a"')


@pytest.fixture
def grammars() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(vocabulary)
    yield compiler
    compiler.close()


def fails(grammars: GrammarCompiler, lark: str) -> str:
    error = grammars.prepare(Grammar(lark)).exception(DEADLINE_S)
    assert isinstance(error, GrammarError)
    return error.message


def test_time_of_compilations_is_summed_and_that_of_cached_ones_is_not(
    grammars: GrammarCompiler,
) -> None:
    assert grammars.spent_s == 0.0
    grammars.prepare(A).result(DEADLINE_S)
    one = grammars.spent_s
    assert 0.0 < one < DEADLINE_S
    grammars.prepare(A).result(DEADLINE_S)
    assert grammars.spent_s == one
    fails(grammars, "start: nothing_there")
    assert grammars.spent_s > one


@pytest.mark.parametrize("lark", [r"start: /[^\s\S]/", "start: start", "start: A\nA: /a/ & /b/"])
def test_grammar_without_texts_is_refused_in_plain_words(
    grammars: GrammarCompiler, lark: str
) -> None:
    assert fails(grammars, lark) == "The grammar matches no text."


def test_hostile_grammars_are_compiled_or_refused_in_time(grammars: GrammarCompiler) -> None:
    started = time.monotonic()
    futures = [grammars.prepare(Grammar(lark)) for lark in cases.HOSTILE.values()]
    errors = [compiled.exception() for compiled in futures]
    assert len(errors) >= 60
    assert time.monotonic() - started < 2 * len(errors)
    assert all(error is None or isinstance(error, GrammarError) for error in errors)
    # Some only look hostile.
    assert 20 < sum(error is not None for error in errors) < 60
    assert allowed(grammars.matcher(generation(A.lark))) == set(ids("a"))


@pytest.mark.parametrize("dialect", [hermes.DIALECT, qwen_coder.DIALECT], ids=["json", "tags"])
def test_hostile_grammars_of_clients_are_compiled_or_refused_in_time(
    grammars: GrammarCompiler, dialect: Dialect
) -> None:
    tool = ToolSpec("patch", "", {"type": "object"})
    limits = [
        CallLimits([tool], min_calls=1, max_calls=1, texts={"patch": text_grammar_of(grammar)})
        for grammar in text_grammars.HOSTILE.values()
    ]
    started = time.monotonic()
    compiled = [grammars.prepare(Grammar(answer_grammar(dialect, one, {}))) for one in limits]
    errors = [one.exception() for one in compiled]
    assert all(error is None or isinstance(error, GrammarError) for error in errors)
    assert time.monotonic() - started < 2 * len(errors)
    assert 3 < sum(error is not None for error in errors) < len(errors)


def test_stack_overflow_ends_only_the_trial_process(grammars: GrammarCompiler) -> None:
    assert "too many resources" in fails(grammars, cases.HOSTILE["chain of 10 000 references"])


def test_slow_grammar_does_not_delay_others(grammars: GrammarCompiler) -> None:
    endless = grammars.prepare(Grammar(cases.HOSTILE["5000 keys that may be"]))
    started = time.monotonic()
    while not endless.done():
        assert grammars.prepare(Grammar(f'start: "{time.monotonic()}"')).exception() is None
    assert isinstance(endless.exception(), GrammarError)
    assert time.monotonic() - started < DEADLINE_S


def test_error_names_the_cause(grammars: GrammarCompiler) -> None:
    assert "nothing" in fails(grammars, "start: nothing")
    assert "regex" in fails(grammars, cases.HOSTILE["pattern: lookahead"])


def test_special_tokens_are_named_by_id_only(
    grammars: GrammarCompiler,
) -> None:
    assert grammars.prepare(Grammar(f"start: /a/ <[{END}]>")).exception() is None
    assert "unknown special token" in fails(grammars, "start: <tool_call> /a/")


def test_the_same_grammar_is_compiled_once(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    assert grammars.prepare(Grammar(A.lark)) is first
    first.result()
    assert grammars.prepare(A) is first


def test_spent_grammar_is_compiled_again(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    first.result().is_spent = True
    second = grammars.prepare(A)
    assert second is not first
    second.result()
    assert grammars.prepare(A) is second


def test_latest_grammars_are_cached_up_to_the_limit(grammars: GrammarCompiler) -> None:
    first = grammars.prepare(A)
    others = [Grammar(f"start: {n}") for n in range(subject.MAX_COMPILED - 1)]
    for other in others:
        grammars.prepare(other).cancel()
    assert grammars.prepare(A) is first
    for other in others:
        grammars.prepare(Grammar(other.lark + " ")).cancel()
    assert grammars.prepare(A) is first
    grammars.prepare(Grammar("start: ")).cancel()
    assert len(grammars._futures) == subject.MAX_COMPILED


def test_unknown_tokenizer_fails_every_grammar(tmp_path: Path) -> None:
    strange = tmp_path / "tokenizer.json"
    strange.write_text(json.dumps({"model": {"type": "Unheard-of"}}))
    for file in (strange, tmp_path / "missing.json"):
        grammars = GrammarCompiler.of(file)
        assert "tokenizer" in fails(grammars, A.lark)
        grammars.close()


def test_grammar_error_explains_why_llguidance_does_not_load(tmp_path: Path) -> None:
    """Uses a child process that finds a library like the one that macOS 27 refuses."""
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
    output = run_program([sys.executable, "-c", program], env={"PYTHONPATH": path}).stdout
    assert output.startswith("GrammarError(")
    assert refused in output
    assert f"{sys.prefix}/bin/python -m pip install --force-reinstall" in output
