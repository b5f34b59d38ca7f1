"""What fits into memory, said before anything is loaded; and the prefixes on disk, shown and cleared."""

import json
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.memory_figures import rendered
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.engine.planning.memory_plan import GB, DeviceLimits
from pensieve.models.catalog.expected_model import planned_context
from pensieve.models.catalog.memory_fit import MemoryLimit
from pensieve.models.folder.config_shape import PHI_3_MINI_SHAPE, shape_of
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests import tiny_models
from tests.cli.fake_server import health, serving

GIB = 2**30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    monkeypatch.delenv("PENSIEVE_MODEL", raising=False)
    return tmp_path


def test_phi_3_costs_what_its_shape_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--ram", "16"]) == 0
    said = capsys.readouterr().out
    assert "phi-3-mini with 16 GB" in said
    assert "384.0" in said
    assert "216.0" in said
    assert "120.0" in said
    (chosen,) = [line for line in said.splitlines() if "chosen" in line]
    assert "8-bit" in chosen
    assert max(map(len, said.splitlines())) <= 80


def test_a_plan_never_promises_more_than_the_model_was_built_for() -> None:
    plan = rendered(PHI_3_MINI_SHAPE, MemoryLimit(DeviceLimits(500 * GB, "metal")))
    assert plan.count("131,072") == 4
    assert "as many as the model was built for" in plan


@pytest.mark.parametrize(
    ("ram", "says"),
    [("16", "30,976 tokens of context, 8-bit: full precision would hold"), ("4", "What fits")],
)
def test_a_plan_ends_in_what_is_chosen_and_why(
    ram: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--ram", ram]) == 0
    assert says in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("ram", "fits"), [(1, "No model"), (4, "What fits: smollm2-135m.")])
def test_a_plan_marks_nothing_that_cannot_serve_and_says_what_would(
    ram: int, fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--ram", str(ram)]) == 0
    said = capsys.readouterr().out
    assert "chosen" not in said
    assert "It does not fit: with a context to work in it takes 15.1 GB." in said
    assert said.splitlines()[-1].strip().startswith(fits)


def test_a_plan_names_the_precision_that_would_serve_where_the_chosen_one_does_not() -> None:
    limits = (GB * percent // 100 for percent in range(200, 500))
    said = next(
        plan
        for plan in (
            rendered(PHI_3_MINI_SHAPE, MemoryLimit(DeviceLimits(limit, "metal")))
            for limit in limits
        )
        if "pensieve config set" in plan
    )
    assert "4-bit holds 256 tokens: pensieve config set kv_bits 4" in said
    assert "chosen" not in said


@pytest.mark.parametrize("model", ["phi-3-mini", "qwen3.5-4b", "smollm2-135m"])
def test_a_chosen_row_of_a_plan_has_a_context(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for ram in range(1, 40):
        assert run(["plan", "--ram", str(ram), "--model", model]) == 0
        said = capsys.readouterr().out
        rows = [line.split()[2] for line in said.splitlines() if "chosen" in line]
        assert ("does not fit" in said) == (not rows)
        assert "0" not in rows


@pytest.mark.parametrize(
    ("ram", "word", "name", "on_a_slow_chip"),
    [
        ("16", "auto", "qwen3.5-9b", None),
        ("36", "auto", "qwen3.8-27b", "qwen3.6-35b"),
        ("64", "auto:fast", "qwen3.6-35b", None),
    ],
)
def test_auto_is_planned_for_a_mac_that_is_not_this_one(
    ram: str,
    word: str,
    name: str,
    on_a_slow_chip: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "--ram", ram, "--model", word]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name} with {ram} GB of memory\n")
    last = said.splitlines()[-1]
    assert ("such as Apple M4 Pro" in last) is (on_a_slow_chip is not None)
    assert last.endswith(on_a_slow_chip or ".")
    assert run(["plan", "--ram", ram, "--model", word, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == name


def test_a_model_of_the_catalog_is_planned_before_it_is_fetched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "--model", "qwen3.5-9b", "--ram", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["context_tokens"], told["kv_bits"]) == (96_000, None)
    assert told["memory_bytes"] == 16 * GIB


def test_a_model_that_is_here_is_planned_from_its_own_config(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.build("llama", home / "model")
    shape = shape_of(folder)
    assert (shape.kv_heads, shape.context_tokens) == (2, 8192)
    assert run(["plan", "--model", str(folder), "--ram", "8"]) == 0
    assert planned_context(Settings(under_home(home), model=str(folder), device="gpu")) == 8192
    assert "8,192" in capsys.readouterr().out


def test_a_model_that_is_not_here_cannot_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "owner/name"]) == 69
    assert "pensieve pull owner/name" in capsys.readouterr().err


@pytest.fixture
def kept(home: Path) -> Path:
    """A prompt of 2 MB on disk."""
    folder = home / "prefixes" / "abc"
    folder.mkdir(parents=True)
    (folder / "1.kv").write_bytes(bytes(2_000_000))
    return folder


def test_the_cache_is_shown_and_cleared(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache"]) == 0
    assert "1 file, 2 MB" in capsys.readouterr().out
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "Cleared 1 file, 2 MB.\n"
    assert not kept.exists()
    assert run(["cache"]) == 0
    assert "0 files" in capsys.readouterr().out


def test_the_cache_tells_the_caps_that_the_engine_keeps(
    home: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_CACHE_GB", "3")
    assert run(["cache"]) == 0
    assert "2 MB of at most 3.0 GB" in capsys.readouterr().out
    figures = {
        "prefix_disk_cap_bytes": 20 * GB,
        "written_today_bytes": 50 * GB,
        "daily_write_budget_bytes": 50 * GB,
        "is_writing_paused": True,
    }
    paths = under_home(home)
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        server.healths = lambda: health() | {"engine": figures}
        assert run(["cache"]) == 0
        said = capsys.readouterr().out
        assert run(["cache", "--json"]) == 0
    assert "of at most 20.0 GB" in said
    assert "50.0 GB of 50.0 GB a day" in said
    assert "paused" in said
    told = json.loads(capsys.readouterr().out)
    assert (told["bytes"], told["cap_bytes"]) == (2_000_000, 20 * GB)
