"""The memory plan and the prompt cache on disk."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.memory_figures import format_plan
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.engine.generation import EngineStats
from pensieve.engine.planning.memory_plan import GB, DeviceLimits
from pensieve.models.catalog.expected_model import planned_context
from pensieve.models.catalog.memory_fit import MemoryLimit
from pensieve.models.folder.config_shape import PHI_3_MINI_SHAPE, shape_of
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.cli.fake_server import health, serving
from tests.support import tiny_models

GIB = 2**30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    monkeypatch.delenv("PENSIEVE_MODEL", raising=False)
    return tmp_path


def test_plan_of_phi_3_matches_its_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--ram", "16"]) == 0
    printed = capsys.readouterr().out
    assert "phi-3-mini with 16 GB" in printed
    assert "384.0" in printed
    assert "216.0" in printed
    assert "120.0" in printed
    (chosen,) = [line for line in printed.splitlines() if "chosen" in line]
    assert "8-bit" in chosen
    assert max(map(len, printed.splitlines())) <= 80


def test_planned_context_is_limited_by_the_model() -> None:
    plan = format_plan(PHI_3_MINI_SHAPE, MemoryLimit(DeviceLimits(500 * GB, "metal")))
    assert plan.count("131,072") == 4
    assert "the model's maximum" in plan


@pytest.mark.parametrize(
    ("ram", "says"),
    [("16", "30,976 tokens of context, 8-bit: full precision would hold"), ("4", "What fits")],
)
def test_plan_ends_with_the_choice_and_its_reason(
    ram: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--ram", ram]) == 0
    assert says in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("ram", "fits"), [(1, "No model"), (4, "What fits: smollm2-135m.")])
def test_plan_of_a_model_that_does_not_fit_names_alternatives(
    ram: int, fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--ram", str(ram)]) == 0
    printed = capsys.readouterr().out
    assert "chosen" not in printed
    assert "It does not fit: with a usable context it needs 15.1 GB." in printed
    assert printed.splitlines()[-1].strip().startswith(fits)


def test_plan_names_a_precision_that_fits() -> None:
    limits = (GB * percent // 100 for percent in range(200, 500))
    printed = next(
        plan
        for plan in (
            format_plan(PHI_3_MINI_SHAPE, MemoryLimit(DeviceLimits(limit, "metal")))
            for limit in limits
        )
        if "pensieve config set" in plan
    )
    assert "4-bit holds 256 tokens: pensieve config set kv_bits 4" in printed
    assert "chosen" not in printed


@pytest.mark.parametrize("model", ["phi-3-mini", "qwen3.5-4b", "smollm2-135m"])
def test_chosen_row_of_a_plan_has_a_context(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for ram in range(1, 40):
        assert run(["plan", "--ram", str(ram), "--model", model]) == 0
        printed = capsys.readouterr().out
        rows = [line.split()[2] for line in printed.splitlines() if "chosen" in line]
        assert ("does not fit" in printed) == (not rows)
        assert "0" not in rows


@pytest.mark.parametrize(
    ("ram", "argument", "name", "on_a_slow_chip"),
    [
        ("16", "auto", "qwen3.5-9b", None),
        ("36", "auto", "qwen3.8-27b", "qwen3.6-35b"),
        ("64", "auto:fast", "qwen3.6-35b", None),
    ],
)
def test_auto_is_planned_for_another_mac(
    ram: str,
    argument: str,
    name: str,
    on_a_slow_chip: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "--ram", ram, "--model", argument]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name} with {ram} GB of memory\n")
    last = printed.splitlines()[-1]
    assert ("such as Apple M4 Pro" in last) is (on_a_slow_chip is not None)
    assert last.endswith(on_a_slow_chip or ".")
    assert run(["plan", "--ram", ram, "--model", argument, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == name


@pytest.mark.parametrize(("pictures", "context_tokens"), [("off", 96_000), ("auto", 63_488)])
def test_catalog_model_is_planned_before_its_download(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pictures: str,
    context_tokens: int,
) -> None:
    monkeypatch.setenv("PENSIEVE_PICTURES", pictures)
    assert run(["plan", "--model", "qwen3.5-9b", "--ram", "16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["context_tokens"], report["kv_bits"]) == (context_tokens, None)
    assert report["memory_bytes"] == 16 * GIB
    assert (report["pictures_bytes"] > 0) == (pictures == "auto")


def test_downloaded_model_is_planned_from_its_config(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.build("llama", home / "model")
    shape = shape_of(folder)
    assert (shape.kv_heads, shape.context_tokens) == (2, 8192)
    assert run(["plan", "--model", str(folder), "--ram", "8"]) == 0
    assert planned_context(Settings(under_home(home), model=str(folder), device="gpu")) == 8192
    assert "8,192" in capsys.readouterr().out


def test_unknown_model_cannot_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "owner/name"]) == 69
    assert "pensieve pull owner/name" in capsys.readouterr().err


@pytest.fixture
def cached_prompt(home: Path) -> Path:
    """A cached prompt of 2 MB on disk."""
    folder = home / "prefixes" / "abc"
    folder.mkdir(parents=True)
    (folder / "1.kv").write_bytes(bytes(2_000_000))
    return folder


def test_cache_is_shown_and_cleared(
    cached_prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cache"]) == 0
    assert "1 file, 2 MB" in capsys.readouterr().out
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "Cleared 1 file, 2 MB.\n"
    assert not cached_prompt.exists()
    assert run(["cache"]) == 0
    assert "0 files" in capsys.readouterr().out


def test_cache_shows_the_engines_limits(
    home: Path,
    cached_prompt: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSIEVE_CACHE_GB", "3")
    assert run(["cache"]) == 0
    assert "2 MB of at most 3.0 GB" in capsys.readouterr().out
    stats = EngineStats(
        *(None, "full precision", 3 * GB, GB, 2 * GB),
        prefix_disk_cap_bytes=20 * GB,
        written_today_bytes=50 * GB,
        daily_write_budget_bytes=50 * GB,
        is_writing_paused=True,
    )
    paths = under_home(home)
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        server.healths = lambda: health() | {"engine": asdict(stats)}
        assert run(["cache"]) == 0
        printed = capsys.readouterr().out
        assert run(["cache", "--json"]) == 0
    assert "of at most 20.0 GB" in printed
    assert "50.0 GB of 50.0 GB a day" in printed
    assert "paused" in printed
    report = json.loads(capsys.readouterr().out)
    assert (report["bytes"], report["cap_bytes"]) == (2_000_000, 20 * GB)
