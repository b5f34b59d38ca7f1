"""A broken package of another Python is named as such, with the variable that leads to it."""

import importlib
import os
import site
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.doctor.checks.python import blamed, check, required_packages
from pensieve.doctor.finding import Finding
from tests.doctor.patients import of_topic, patient, with_variables

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
def test_a_package_that_fails_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = f"foreign_{kind.lower()}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(FAILURES[kind])
    (tmp_path / name / "deeper.py").write_text("fails = 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    error = caught(lambda: importlib.import_module(name))
    found = blamed(error, {"PYTHONPATH": os.pathsep.join(["/other", str(tmp_path)])})
    assert found is not None
    assert f"The Python package {name} in {tmp_path} is not pensieve's own" in found.message
    assert f"{kind}: " in found.message
    assert "by PYTHONPATH" in found.message
    assert found.hint == "Leave it out:\n  unset PYTHONPATH"


def test_a_package_that_no_variable_leads_to_is_not_put_down_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_alone.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    error = caught(lambda: importlib.import_module("foreign_alone"))
    found = blamed(error, {"PYTHONPATH": "/other"})
    assert found is not None
    assert "foreign_alone in" in found.message
    assert "PYTHONPATH" not in f"{found.message}{found.hint}"


def test_a_missing_package_of_ours_is_an_incomplete_installation() -> None:
    found = blamed(ModuleNotFoundError("No module named 'pydantic'", name="pydantic"), {})
    assert found is not None
    assert found.message == "pensieve is not installed whole: there is no Python package pydantic."


@pytest.mark.parametrize("error", [ValueError("ours"), ModuleNotFoundError("x", name="pensieve.x")])
def test_a_fault_of_our_own_is_nobody_elses(error: Exception) -> None:
    def fails() -> None:
        raise error

    assert blamed(caught(fails), {"PYTHONPATH": "/x", "HOME": site.getuserbase()}) is None


def found(home: Path, **variables: str) -> list[Finding]:
    return list(check(with_variables(patient(home), **variables)))


def test_doctor_tells_of_variables_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pydantic").mkdir()
    (tmp_path / "httpx.py").touch()
    finding = of_topic(found(tmp_path, PYTHONPATH=f"/x:{tmp_path}", PYTHONOPTIMIZE="2"), "python")
    assert finding.level == "ok"
    assert "Set in this shell and not read: PYTHONOPTIMIZE, PYTHONPATH." in finding.text
    assert "PYTHONPATH also leads to another httpx, pydantic." in finding.text


def test_doctor_says_no_more_where_nothing_is_set(tmp_path: Path) -> None:
    [finding] = found(tmp_path)
    assert "Not read" not in finding.text
    assert {"pydantic", "httpx", "prompt_toolkit", "mlx_lm"} <= set(required_packages())
