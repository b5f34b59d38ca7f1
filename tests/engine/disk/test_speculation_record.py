"""What a model's last loading decided about speculation is found by its folder, or not at all."""

from pathlib import Path

import pytest

from pensieve.engine.disk.speculation_record import store_state, stored_state
from pensieve.engine.generation import SpeculationState

MODEL = Path("/models/one")
STATE = SpeculationState("no_width_pays", 16, 14.1)


def test_state_is_that_of_the_models_last_loading(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    assert stored_state(folder, MODEL) is None
    for state in (SpeculationState("caches"), SpeculationState("pays", 4, 1.5, True), STATE):
        store_state(folder, MODEL, state)
        assert stored_state(folder, MODEL) == state
    assert stored_state(folder, Path("/models/two")) is None
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        *["", "[]", "{", '{"reason": "pays"}', '{"reason": "new", "rows": 1, "ratio": 1.0}'],
        '{"reason": "pays", "rows": "1", "ratio": 1.0}',
        " " * 5000,
    ],
)
def test_damaged_or_foreign_file_is_no_state(tmp_path: Path, content: str) -> None:
    store_state(tmp_path, MODEL, STATE)
    (file,) = tmp_path.iterdir()
    file.write_text(content, encoding="utf-8")
    assert stored_state(tmp_path, MODEL) is None


def test_folder_that_refuses_files_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    store_state(blocked, MODEL, STATE)
    assert "storing why speculation is on or off failed" in caplog.text
