"""Findings about settings, key, file modes, disk and the model's files."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.daemon.health_client import Health
from pensieve.doctor.checks.storage import check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from pensieve.errors import SettingsError
from pensieve.models.fetching.verify import sha256_of
from pensieve.models.folder.snapshot import MARKER, ModelFile, Snapshot, write_snapshot
from tests.doctor.contexts import healthy_context, of_topic, with_server
from tests.support import tiny_models

STRONG = "q8dV3nR7xK2mW9tB4yHs6LzPc1Fj"
NAME = "owner/tiny"


def examined(context: DoctorContext, *, is_thorough: bool = False) -> list[Finding]:
    return list(check(context, is_thorough=is_thorough))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("llama", tmp_path_factory.mktemp("built"))


@pytest.fixture
def stocked(tmp_path: Path, built: Path) -> DoctorContext:
    """A home with a model as a fetch leaves it."""
    context = healthy_context(tmp_path, model=NAME)
    folder = context.settings.paths.models / "owner--tiny"
    folder.mkdir(parents=True)
    for file in built.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    files = tuple(
        ModelFile(file.name, file.stat().st_size, sha256_of(file)) for file in built.iterdir()
    )
    write_snapshot(Snapshot(NAME, "f" * 40, files), folder / MARKER)
    return context


# settings and key


def test_settings_are_listed_with_their_origins(tmp_path: Path) -> None:
    file = f"{tmp_path}/c.toml"
    context = healthy_context(
        tmp_path, port=9000, model="m", origins={"port": "environment", "model": file}
    )
    assert of_topic(examined(context), "settings").text == (
        "~/c.toml: model m; environment: port 9000; chosen by the machine: device, memory_gb,"
        " kv_bits, cache_gb, daily_write_gb; by default: host 127.0.0.1, require_key auto,"
        " workers 1, ssh_command ssh, thinking auto, speculation auto, pictures auto,"
        " picture_tokens 1280, idle_unload 30, log_format text, keep_awake true;"
        " chosen by the model: temperature, top_p, top_k, min_p, repetition_penalty"
    )


def test_unreadable_settings_are_red_and_other_checks_run(
    tmp_path: Path,
) -> None:
    error = SettingsError("c.toml is not TOML.", hint="Mend it:\n  pensieve config reset")
    findings = examined(replace(healthy_context(tmp_path), settings_error=error))
    finding = of_topic(findings, "settings")
    assert (finding.level, finding.fix) == ("red", "pensieve config reset")
    assert of_topic(findings, "disk")


@pytest.mark.parametrize(
    ("host", "key", "level"),
    [
        ("127.0.0.1", "pensieve-local-key", "ok"),
        ("127.0.0.1", STRONG, "ok"),
        ("127.0.0.1", "hunter2", "warning"),
        ("0.0.0.0", STRONG, "ok"),
        ("0.0.0.0", "pensieve-local-key", "red"),
        ("0.0.0.0", "hunter2", "red"),
    ],
)
def test_a_key_is_judged_by_its_reach_and_never_shown(
    tmp_path: Path, host: str, key: str, level: str
) -> None:
    findings = examined(healthy_context(tmp_path, host=host, api_key=key))
    finding = of_topic(findings, "key")
    assert finding.level == level
    assert level == "ok" or "openssl rand" in finding.fix
    assert not any(key in f"{each.text}{each.fix}" for each in findings)


@pytest.mark.parametrize(
    ("host", "key", "level"),
    [("127.0.0.1", "pensieve-local-key", "ok"), ("::1", STRONG, "warning"), ("::", STRONG, "red")],
)
def test_a_key_that_is_not_required_is_judged_by_its_reach(
    tmp_path: Path, host: str, key: str, level: str
) -> None:
    context = healthy_context(tmp_path, host=host, api_key=key, require_key="off")
    finding = of_topic(examined(context), "key")
    assert finding.level == level
    assert level == "ok" or finding.fix == "pensieve config set require_key auto"


# files


def open_to_all(context: DoctorContext) -> None:
    context.settings.paths.state.chmod(0o711)
    (context.settings.paths.state / "server.json").chmod(0o644)


def open_folder(context: DoctorContext) -> None:
    context.settings.paths.state.chmod(0o755)


def open_prompts(context: DoctorContext) -> None:
    prompts = context.settings.paths.prefixes / "model"
    prompts.mkdir(parents=True, mode=0o700)
    context.settings.paths.prefixes.chmod(0o755)


def linked(context: DoctorContext) -> None:
    state = context.settings.paths.state
    state.rename(state.with_name("elsewhere"))
    state.symlink_to(state.with_name("elsewhere"))


@pytest.mark.parametrize("damage", [open_to_all, open_folder, open_prompts, linked])
def test_files_readable_by_others_are_red_and_the_fix_works(
    tmp_path: Path, damage: Callable[[DoctorContext], None]
) -> None:
    context = healthy_context(tmp_path)
    context.settings.paths.state.mkdir(parents=True, mode=0o700)
    (context.settings.paths.state / "server.json").touch(0o600)
    assert of_topic(examined(context), "files").level == "ok"
    damage(context)
    finding = of_topic(examined(context), "files")
    assert finding.level == "red"
    assert finding.fix.startswith("chmod -R go= ")
    if damage is not linked:
        assert os.system(finding.fix) == 0
        assert of_topic(examined(context), "files").level == "ok"


def test_modes_do_not_matter_in_a_folder_that_others_cannot_enter(tmp_path: Path) -> None:
    context = healthy_context(tmp_path)
    agent = context.settings.paths.agents / "codex"
    agent.mkdir(parents=True)
    context.settings.paths.state.chmod(0o700)
    (agent / "skills.json").touch(0o644)
    assert of_topic(examined(context), "files").level == "ok"
    for folder in (agent.parent, context.settings.paths.state):
        folder.chmod(0o711)
    assert of_topic(examined(context), "files").level == "red"


def test_a_configuration_file_readable_by_others_is_red(tmp_path: Path) -> None:
    context = healthy_context(tmp_path)
    context.settings.paths.config_file.parent.mkdir(parents=True)
    context.settings.paths.config_file.touch(0o644)
    assert "config.toml" in of_topic(examined(context), "files").text


# model and disk


def test_a_complete_model_is_checked_by_size_and_on_request_by_hash(stocked: DoctorContext) -> None:
    assert "of the published sizes" in of_topic(examined(stocked), "model").text
    thorough = of_topic(examined(stocked, is_thorough=True), "model")
    assert (thorough.level, "every byte" in thorough.text) == ("ok", True)


def test_a_flipped_bit_is_found_on_request_with_the_fix(stocked: DoctorContext) -> None:
    weights = stocked.settings.paths.models / "owner--tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert of_topic(examined(stocked), "model").level == "ok"
    finding = of_topic(examined(stocked, is_thorough=True), "model")
    assert finding.level == "red"
    assert "model.safetensors" in finding.text
    assert f"pensieve pull {NAME}" in finding.fix


def test_a_truncated_file_is_found_by_size(stocked: DoctorContext) -> None:
    weights = stocked.settings.paths.models / "owner--tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    finding = of_topic(examined(stocked), "model")
    assert (finding.level, finding.fix) == ("red", f"pensieve pull {NAME}")


def test_a_model_to_be_fetched_is_a_warning(tmp_path: Path) -> None:
    finding = of_topic(examined(healthy_context(tmp_path)), "model")
    assert (finding.level, finding.fix) == ("warning", "pensieve pull phi-3-mini")


@pytest.mark.parametrize("model", ["no such thing", "/no/such/folder"])
def test_an_invalid_model_is_red(tmp_path: Path, model: str) -> None:
    assert of_topic(examined(healthy_context(tmp_path, model=model)), "model").level == "red"


def test_a_local_folder_is_checked(tmp_path: Path, built: Path) -> None:
    findings = examined(healthy_context(tmp_path, model=str(built)), is_thorough=True)
    assert "a folder of yours" in of_topic(findings, "model").text


def test_the_served_model_is_checked_before_the_configured_one(
    stocked: DoctorContext, built: Path
) -> None:
    other = replace(stocked, settings=replace(stocked.settings, model="qwen3-4b"))
    served = with_server(other, 7777, Health("ready", model=NAME, repo=NAME))
    served = replace(served, record=replace(served.record, model=NAME))
    assert of_topic(examined(served), "model").text.startswith(NAME)
    folder = with_server(other, 7777, Health("ready", model="tiny", repo=str(built)))
    assert "a folder of yours" in of_topic(examined(folder), "model").text


def test_the_free_disk_space_is_reported(tmp_path: Path) -> None:
    assert "GB free" in of_topic(examined(healthy_context(tmp_path)), "disk").text


def test_allowed_hosts_and_origins_are_reported(tmp_path: Path) -> None:
    let_in = {"allowed_hosts": "host.docker.internal, host.orb.internal"}
    with_default_key = of_topic(list(check(healthy_context(tmp_path, **let_in))), "hosts")
    assert with_default_key.level == "warning"
    assert "this server host.docker.internal, host.orb.internal" in with_default_key.text
    own = healthy_context(
        tmp_path, **let_in, allowed_origins="http://localhost:3000", api_key=STRONG
    )
    findings = list(check(own))
    assert of_topic(findings, "hosts").level == of_topic(findings, "origins").level == "ok"


def test_without_allowed_hosts_and_origins_there_is_no_finding(tmp_path: Path) -> None:
    findings = list(check(healthy_context(tmp_path)))
    assert not [finding for finding in findings if finding.topic in {"hosts", "origins"}]
    assert "allowed_" not in of_topic(findings, "settings").text


def test_what_was_set_aside_is_named_with_its_removal(tmp_path: Path) -> None:
    context = healthy_context(tmp_path)
    assert "set aside" not in {finding.topic for finding in examined(context)}
    names = [context.settings.paths.state / name for name in ("batches.broken", "files.broken.2")]
    for folder in names:
        folder.mkdir(parents=True)
    finding = of_topic(examined(context), "set aside")
    assert finding.level == "warning"
    assert "~/pensieve/state/batches.broken, ~/pensieve/state/files.broken.2" in finding.text
    assert finding.fix == "\n".join(f"rm -r {folder}" for folder in names)


@pytest.mark.parametrize("free_bytes", [0, 10**7])
def test_a_full_disk_of_the_state_is_red(tmp_path: Path, free_bytes: int) -> None:
    context = healthy_context(tmp_path)
    findings = list(check(context, free=lambda _: free_bytes))
    finding = of_topic(findings, "state disk")
    assert finding.level == "red"
    assert f"{free_bytes // 10**6} MB free in {tmp_path}" in finding.text
    assert finding.fix.splitlines()[-1] == f"df -h {tmp_path}"
    assert "state disk" not in {each.topic for each in check(context, free=lambda _: 10**9)}
