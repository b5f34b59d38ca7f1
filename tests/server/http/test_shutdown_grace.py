"""The grace of open answers, by recorded outputs of launchctl."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pensieve.server.http.shutdown_grace import exit_timeout_s, grace_s

PRINTED = (Path(__file__).parents[2] / "recorded" / "launchctl_print.txt").read_text()
SERVICE = "homebrew.mxcl.pensieve"


def saying(text: str) -> str:
    return PRINTED.replace("exit timeout = 5", text)


def test_timeout_is_parsed_from_launchctl_output() -> None:
    assert exit_timeout_s(PRINTED) == 5
    assert exit_timeout_s(saying("exit timeout = 25")) == 25
    assert exit_timeout_s(saying("\tdeeper exit timeout = 25")) is None
    assert exit_timeout_s("Could not find service") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (PRINTED, 2),
        (saying("exit timeout = 25"), 15),
        (saying("exit timeout = 10"), 7),
        (saying("exit timeout = 1"), 1),
        (saying("exit timeout = 0"), 15),
        ("", 2),
        ("Could not find service", 2),
    ],
)
def test_service_grace_is_shorter_than_launchd_timeout(text: str, seconds: int) -> None:
    assert grace_s(SERVICE, lambda _: text) == seconds


def test_server_outside_launchd_has_full_grace() -> None:
    calls: list[Sequence[str]] = []

    def launchctl(arguments: Sequence[str]) -> str:
        calls.append(arguments)
        return PRINTED

    assert grace_s("", launchctl) == 15
    assert calls == []


@pytest.mark.skipif(Path("/bin/launchctl").exists(), reason="launchctl is here")
def test_service_without_launchctl_uses_launchds_default() -> None:
    assert grace_s(SERVICE) == 2


def test_launchctl_is_called_with_service_name() -> None:
    calls: list[str] = []

    def launchctl(arguments: Sequence[str]) -> str:
        calls.append(" ".join(arguments))
        return ""

    grace_s(SERVICE, launchctl)
    assert all(each.endswith(f"/{SERVICE}") and each.startswith("print ") for each in calls)
    assert calls
