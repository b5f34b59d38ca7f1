"""A broken package of another Python is named with the variable that leads to it."""

import importlib
import os
import site
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.doctor.checks.python import blamed, check, required_packages
from pensieve.doctor.finding import Finding
from tests.doctor.contexts import healthy_context, of_topic, with_variables

FAILURES: dict[str, str] = {
    "ImportError": "raise ImportError('built for another Python')",
    "ModuleNotFoundError": "import not_there_at_all",
    "SyntaxError": "print 'Python 2'",
    "AttributeError": "import os; os.getcwdu()",
    "ZeroDivisionError": "from .deeper import fails",
}


def caught(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- whatever a foreign package raises
        action()
    return caught.value


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_foreign_package_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = f"foreign_{kind.lower()}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(FAILURES[kind])
    (tmp_path / name / "deeper.py").write_text("fails = 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    error = caught(lambda: importlib.import_module(name))
    blame = blamed(error, {"PYTHONPATH": os.pathsep.join(["/other", str(tmp_path)])})
    assert blame is not None
    assert f"The Python package {name} in {tmp_path} is not pensieve's own" in blame.message
    assert f"{kind}: " in blame.message
    assert "by PYTHONPATH" in blame.message
    assert blame.hint == "Exclude it:\n  unset PYTHONPATH"


def test_a_foreign_package_on_the_import_path_is_not_attributed_to_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_alone.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    error = caught(lambda: importlib.import_module("foreign_alone"))
    blame = blamed(error, {"PYTHONPATH": "/other"})
    assert blame is not None
    assert "foreign_alone in" in blame.message
    assert "PYTHONPATH" not in f"{blame.message}{blame.hint}"


def test_a_missing_package_of_ours_is_an_incomplete_installation() -> None:
    blame = blamed(ModuleNotFoundError("No module named 'pydantic'", name="pydantic"), {})
    assert blame is not None
    assert (
        blame.message
        == "pensieve is not completely installed: the Python package pydantic is missing."
    )


@pytest.mark.parametrize("error", [ValueError("ours"), ModuleNotFoundError("x", name="pensieve.x")])
def test_an_error_of_our_own_is_not_attributed(error: Exception) -> None:
    def fails() -> None:
        raise error

    assert blamed(caught(fails), {"PYTHONPATH": "/x", "HOME": site.getuserbase()}) is None


def found(home: Path, **variables: str) -> list[Finding]:
    return list(check(with_variables(healthy_context(home), **variables)))


def test_doctor_lists_ignored_python_variables(tmp_path: Path) -> None:
    (tmp_path / "pydantic").mkdir()
    (tmp_path / "httpx.py").touch()
    finding = of_topic(found(tmp_path, PYTHONPATH=f"/x:{tmp_path}", PYTHONOPTIMIZE="2"), "python")
    assert finding.level == "ok"
    assert "Set in this shell and not read: PYTHONOPTIMIZE, PYTHONPATH." in finding.text
    assert "PYTHONPATH also leads to another httpx, pydantic." in finding.text


def test_doctor_lists_no_variables_if_none_is_set(tmp_path: Path) -> None:
    [finding] = found(tmp_path)
    assert "Not read" not in finding.text
    assert {"pydantic", "httpx", "prompt_toolkit", "mlx_lm"} <= set(required_packages())
