"""How long open answers may go on, by recorded outputs of launchctl."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pensieve.server.http.shutdown_grace import exit_timeout_s, grace_s

PRINTED = (Path(__file__).parents[2] / "recorded" / "launchctl_print.txt").read_text()
SERVICE = "homebrew.mxcl.pensieve"


def saying(text: str) -> str:
    return PRINTED.replace("exit timeout = 5", text)


def test_the_timeout_is_read_from_what_launchctl_prints() -> None:
    assert exit_timeout_s(PRINTED) == 5
    assert exit_timeout_s(saying("exit timeout = 25")) == 25
    assert exit_timeout_s(saying("\tdeeper exit timeout = 25")) is None
    assert exit_timeout_s("Could not find service") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (PRINTED, 3),
        (saying("exit timeout = 25"), 15),
        (saying("exit timeout = 10"), 8),
        (saying("exit timeout = 1"), 1),
        (saying("exit timeout = 0"), 15),
        ("", 3),
        ("Could not find service", 3),
    ],
)
def test_a_service_ends_before_launchd_kills_it(text: str, seconds: int) -> None:
    assert grace_s(SERVICE, lambda _: text) == seconds


def test_a_server_that_launchd_does_not_keep_has_its_full_grace() -> None:
    asked: list[Sequence[str]] = []

    def launchctl(arguments: Sequence[str]) -> str:
        asked.append(arguments)
        return PRINTED

    assert grace_s("", launchctl) == 15
    assert asked == []


@pytest.mark.skipif(Path("/bin/launchctl").exists(), reason="launchctl is here")
def test_without_launchctl_a_service_is_taken_for_launchds_default() -> None:
    assert grace_s(SERVICE) == 3


def test_the_service_is_asked_for_by_its_name() -> None:
    asked: list[str] = []

    def launchctl(arguments: Sequence[str]) -> str:
        asked.append(" ".join(arguments))
        return ""

    grace_s(SERVICE, launchctl)
    assert all(each.endswith(f"/{SERVICE}") and each.startswith("print ") for each in asked)
    assert asked
