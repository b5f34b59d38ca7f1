"""A team's server: TLS by a certificate of one's own, named keys, and the commands against both."""

import json
import shlex
import ssl
from dataclasses import dataclass
from pathlib import Path

import anthropic
import httpx
import httpx2
import pytest

from tests.e2e.installation import KEY
from tests.e2e.machines.conftest import TinyInstallation, installations
from tests.support.certificates import authority


@dataclass(frozen=True)
class TeamServer(TinyInstallation):
    ca: Path
    variables: dict[str, str]

    @property
    def base_url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.variables


@pytest.fixture(scope="module")
def team(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    made = authority(tmp_path_factory.mktemp("authority"))
    issued = made.issue("DNS:localhost", "DNS:studio.local")
    (own,) = installations(tmp_path_factory.mktemp("team"), tiny_folder, ["home"])
    variables = {
        "PENSIEVE_TLS_CERTIFICATE": str(issued.certificate),
        "PENSIEVE_TLS_KEY": str(issued.key),
        "PENSIEVE_TLS_CA": str(made.certificate),
        "PENSIEVE_REQUIRE_KEY": "on",
    }
    started = TeamServer(own.home, own.port, tiny_folder, made.certificate, variables)
    assert f"{started.base_url})" in started.start().stdout
    yield started
    started.pensieve("stop", "--force")


def client_of(team: TeamServer, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=team.base_url,
        api_key=key,
        max_retries=0,
        http_client=httpx2.Client(verify=ssl.create_default_context(cafile=team.ca)),
    )


def ask(client: anthropic.Anthropic) -> anthropic.types.Message:
    return client.messages.create(
        model="tiny", max_tokens=2, messages=[{"role": "user", "content": "Hello"}]
    )


def test_sdk_is_answered_over_tls_until_its_key_is_revoked(team: TeamServer) -> None:
    key = team.pensieve("keys", "add", "anna", "--per-minute", "2").stdout.strip()
    with client_of(team, key) as client:
        assert ask(client).usage.output_tokens  # its random weights may end the answer at once
        response = client.messages.with_raw_response.create(
            model="tiny", max_tokens=1, messages=[{"role": "user", "content": "Hello"}]
        )
        assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        with pytest.raises(anthropic.RateLimitError) as refused:
            ask(client)
        assert int(refused.value.response.headers["retry-after"]) > 0
        team.pensieve("keys", "revoke", "anna")
        with pytest.raises(anthropic.AuthenticationError):
            ask(client)
    assert ", key anna" in (team.home / "logs" / "server.log").read_text()


def test_commands_reach_the_server_over_tls(team: TeamServer) -> None:
    status = json.loads(team.pensieve("status", "--json").stdout)
    assert (status["status"], status["url"]) == ("ready", team.base_url)
    assert team.pensieve("chat", "--max-tokens", "2", "Hello").stdout.strip()
    assert json.loads(team.pensieve("top", "--json").stdout)["health"]["model"] == team.folder.name
    variables = dict(
        shlex.split(line.removeprefix("export "))[0].split("=", 1)
        for line in team.pensieve("env", "--check", "--shell", "sh").stdout.splitlines()
        if line.startswith("export ")
    )
    assert variables["ANTHROPIC_BASE_URL"] == team.base_url
    assert variables["NODE_EXTRA_CA_CERTS"] == str(team.ca)


def test_doctor_finds_nothing_wrong_with_the_server(team: TeamServer) -> None:
    findings = json.loads(team.pensieve("doctor", "--json", check=False).stdout)
    levels = {each["topic"]: each["level"] for each in findings["findings"]}
    assert (levels["server"], levels["probe"]) == ("ok", "ok")


def test_program_that_does_not_know_the_authority_is_not_answered(team: TeamServer) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{team.base_url}/health", headers={"x-api-key": KEY})
