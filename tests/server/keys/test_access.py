"""Named keys at the door: who is let in, from where, and until when."""

import logging
from pathlib import Path

import pytest

from pensieve.credentials.named_keys import KeyLimits, NamedKey, add_key, revoke_key, sha256_of
from pensieve.server.keys.ring import KeyRing
from tests.server.keys.team import OTHER_MACHINE, team_of
from tests.server.serving import CALL, KEY

pytestmark = pytest.mark.anyio
OWN_KEY = "0123456789abcdefghijklmnopqrstuv"


async def test_named_key_is_let_in_where_a_wrong_one_is_not(tmp_path: Path) -> None:
    async with team_of(tmp_path, "anna", require_key="on") as team:
        assert (await team["anna"].get("/v1/models")).status_code == 200
        key = team["anna"].headers["x-api-key"]
        for wrong in (key[:-1], f"{key}0", sha256_of(key.encode()), "", "é".encode()):
            response = await team["anna"].get("/v1/models", headers={"x-api-key": wrong})
            assert response.status_code == 401


async def test_named_key_is_a_bearer_token_too(tmp_path: Path) -> None:
    async with team_of(tmp_path, "anna", require_key="on") as team:
        key = team["anna"].headers.pop("x-api-key")
        response = await team["anna"].get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert response.status_code == 200


async def test_running_server_notices_new_and_revoked_keys_at_the_next_request(
    tmp_path: Path,
) -> None:
    async with team_of(tmp_path, require_key="on") as team:
        file = team.paths.keys_file
        for _ in range(3):
            headers = {"x-api-key": add_key(file, "ben", KeyLimits(), 1.0)}
            assert (await team[""].get("/v1/models", headers=headers)).status_code == 200
            revoke_key(file, "ben")
            assert (await team[""].get("/v1/models", headers=headers)).status_code == 401


async def test_damaged_file_lets_no_named_key_in_and_the_servers_own_one(tmp_path: Path) -> None:
    async with team_of(tmp_path, "anna", require_key="on") as team:
        team.paths.keys_file.write_text("{}")
        assert (await team["anna"].get("/v1/models")).status_code == 401
        assert (await team[""].get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        (OTHER_MACHINE, 401),
        ("::ffff:192.168.1.9", 401),
        ("fe80::1%en0", 401),
        ("not an address", 401),
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("localhost", 200),  # the address that it reaches
    ],
)
async def test_default_key_works_from_this_machine_alone_where_others_reach_the_server(
    tmp_path: Path, peer: str, status: int
) -> None:
    async with team_of(tmp_path, "anna", host="0.0.0.0", peer=peer) as team:
        assert (await team[""].get("/v1/models")).status_code == status
        assert (await team["anna"].get("/v1/models")).status_code == 200


async def test_own_key_works_from_other_machines(tmp_path: Path) -> None:
    settings = {"host": "0.0.0.0", "api_key": OWN_KEY}
    async with team_of(tmp_path, peer=OTHER_MACHINE, **settings) as team:
        response = await team[""].get("/v1/models", headers={"x-api-key": OWN_KEY})
        assert response.status_code == 200
        assert (await team[""].get("/v1/models", headers={"x-api-key": KEY})).status_code == 401


async def test_names_of_the_certificate_are_names_of_the_server(tmp_path: Path) -> None:
    from pensieve.server.app import AppParts

    parts = AppParts(certificate_names=("studio.local", "fe80::1"))
    tls = {"tls_certificate": "c", "tls_key": "k"}
    async with team_of(tmp_path, parts=parts, **tls) as team:
        for host, status in (("studio.local", 200), ("[fe80::1]:7777", 200), ("evil.com", 403)):
            response = await team[""].get("/v1/models", headers={"host": host})
            assert response.status_code == status
        origins = {"https://localhost:7777": 200, "http://localhost:7777": 403}
        for origin, status in origins.items():
            response = await team[""].get("/v1/models", headers={"origin": origin})
            assert response.status_code == status


async def test_log_line_has_the_name_of_the_key_and_not_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pensieve.server"):
        async with team_of(tmp_path, "anna") as team:
            for name in ("anna", ""):
                await team[name].post("/v1/messages", json=CALL)
            key = team["anna"].headers["x-api-key"]
    lines = [record.message for record in caplog.records if "/v1/messages" in record.message]
    assert [", key anna" in line for line in lines] == [True, False]
    assert key not in caplog.text


async def test_scheduler_is_told_whose_request_it_is(tmp_path: Path) -> None:
    chat = {"model": "any", "messages": CALL["messages"]}
    async with team_of(tmp_path, "anna") as team:
        for path, call in (
            ("/v1/messages", CALL),
            ("/v1/chat/completions", chat),
            ("/v1/completions", {"model": "any", "prompt": "Hello"}),
            ("/v1/responses", {"model": "any", "input": "Hello"}),
        ):
            for name in ("anna", ""):
                assert (await team[name].post(path, json=call)).status_code == 200
        clients = [generation.client for generation in team.engine.generations]
    assert clients == ["anna", ""] * 4


def test_unchanged_file_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "anna", KeyLimits(), 1.0).encode()
    ring = KeyRing(file)
    assert ring.find([b"wrong", key]) == NamedKey("anna", sha256_of(key), 1.0)
    file.chmod(0)  # root could read it all the same
    file_as_read = file.stat()
    assert ring.find([key]) is not None
    assert file.stat() == file_as_read


def test_without_a_file_there_is_no_key(tmp_path: Path) -> None:
    assert KeyRing(tmp_path / "none" / "keys.json").find([b"any"]) is None
