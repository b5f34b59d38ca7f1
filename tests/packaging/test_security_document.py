"""docs/security.md names the tests that hold what it promises."""

import re

from tests.packaging.project import ROOT, read

TESTS = re.compile(r"`(tests/[\w/.]+)`")


def test_every_test_that_the_document_names_is_there() -> None:
    named = set(TESTS.findall(read("docs/security.md")))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()
