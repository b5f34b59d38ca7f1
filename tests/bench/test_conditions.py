"""What a run depends on, and what makes it doubtful."""

import pytest

from pensieve.bench.conditions import Surroundings, conditions, model_name, power, power_source
from tests.bench.fake_served import READY


@pytest.mark.parametrize(
    ("printed", "source"),
    [
        ("Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t80%; charging\n", "AC Power"),
        ("Now drawing from 'Battery Power'\n", "Battery Power"),
        ("", ""),
        ("pmset: error", ""),
    ],
)
def test_power_source_is_as_pmset_names_it(printed: str, source: str) -> None:
    assert power_source(printed) == source


def test_power_is_unknown_on_other_systems() -> None:
    assert power("linux") == ""


@pytest.mark.parametrize(
    ("load", "source", "count"),
    [(0.5, "AC Power", 0), (2.1, "", 1), (0.1, "Battery Power", 1), (9.0, "Battery Power", 2)],
)
def test_load_and_battery_make_figures_doubtful(load: float, source: str, count: int) -> None:
    assert len(Surroundings("Mac", 8, load, source).warnings()) == count


def test_conditions_name_model_machine_and_versions() -> None:
    found = conditions(READY, "tiny (someone/tiny)", Surroundings("Mac", 8, 0.1, "AC Power"))
    assert found["model"] == "tiny (someone/tiny)"
    assert found["context"] == "32,768 tokens"
    assert (found["machine"], found["power"]) == ("Mac", "AC Power")
    assert found["versions"].startswith("pensieve 0.1.0, mlx ")


def test_path_of_a_model_is_not_in_its_name() -> None:
    assert model_name("tiny", "/Users/someone/models/tiny") == "tiny"
    assert model_name("tiny", "someone/tiny") == "tiny (someone/tiny)"
