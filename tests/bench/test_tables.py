"""The table, a saved run, and the comparison of two."""

import json
from dataclasses import replace

import pytest

from pensieve.bench.result import Figure, Result, loads
from pensieve.bench.tables import as_text, comparison, differences

RESULT = Result(
    measured_at="2026-12-01T04:00:00+00:00",
    conditions={"model": "tiny", "machine": "Apple M4, 10 cores, 16 GiB, macOS 26.1", "power": ""},
    figures=(
        Figure("first token, 16k prompt, restarted", "s", (0.5123, 0.4, 0.6)),
        Figure("prefill, 4k prompt", "tokens/s", (1234.5,)),
        Figure("decode, short prompt, drafts", "tokens/s", (50.0, 51.0, 52.0)),
    ),
    left_out=("16k prompt: the context is 8,192 tokens, " + "which is not enough " * 5,),
    warnings=("on battery",),
)


def with_samples(*samples: float) -> Result:
    first, *rest = RESULT.figures
    return replace(RESULT, figures=(replace(first, samples=samples), *rest))


def test_table_is_markdown_with_median_range_and_runs() -> None:
    assert as_text(RESULT).split("\n\n")[1].splitlines() == [
        "| figure                                  | median |         range | runs |",
        "|-----------------------------------------|-------:|--------------:|-----:|",
        "| first token, 16k prompt, restarted (s)  |  0.512 | 0.400 - 0.600 |    3 |",
        "| prefill, 4k prompt (tokens/s)           |  1,234 |               |    1 |",
        "| decode, short prompt, drafts (tokens/s) |   51.0 |   50.0 - 52.0 |    3 |",
    ]


def test_text_fits_79_columns_and_names_everything() -> None:
    text = as_text(RESULT) + comparison(RESULT, RESULT)
    assert max(map(len, text.splitlines())) <= 79
    assert "- model: tiny" in text
    assert "Left out:\n\n- 16k prompt: the context" in text
    assert "Doubtful:\n\n- on battery" in text
    assert "- power" not in text


def test_saved_run_is_read_back() -> None:
    saved = loads(RESULT.dumps())
    assert saved.figures[1:] == (
        Figure("prefill, 4k prompt", "tokens/s", (1234.0,)),
        *RESULT.figures[2:],
    )
    assert replace(saved, figures=()) == replace(RESULT, figures=())
    assert json.loads(RESULT.dumps())["figures"][0]["median"] == 0.5123


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        RESULT.dumps().replace("50.0", "-1"),
        RESULT.dumps().replace("50.0", "NaN"),
        RESULT.dumps().replace("50.0", "1" * 400),
        RESULT.dumps().replace("50.0", '"fast"'),
        RESULT.dumps().replace('"conditions": {', '"conditions": [{').replace("},", "}],", 1),
    ],
)
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ((0.2, 0.25, 0.3), "0.49 faster |"),
        ((1.0, 1.1, 1.2), "2.15 slower |"),
        ((0.5, 0.7, 0.9), "1.37        |"),
        ((0.2, 0.25), "0.44        |"),
    ],
)
def test_ratio_has_a_verdict_if_ranges_do_not_overlap(
    samples: tuple[float, ...], verdict: str
) -> None:
    assert verdict in comparison(RESULT, with_samples(*samples))


def test_higher_rate_is_faster() -> None:
    faster = replace(
        RESULT, figures=(Figure("decode, short prompt, drafts", "tokens/s", (60, 61, 61)),)
    )
    assert "1.20 faster" in comparison(RESULT, faster)


def test_figures_of_one_run_alone_are_named() -> None:
    text = comparison(RESULT, replace(RESULT, figures=RESULT.figures[1:]))
    assert "Not in both runs:\n\n- first token, 16k prompt, restarted" in text
    assert "No figure is in both runs." in comparison(RESULT, replace(RESULT, figures=()))


def test_other_model_or_machine_is_named_but_not_other_load() -> None:
    other = {**RESULT.conditions, "model": "large", "load": "9", "power": "AC Power"}
    now = replace(RESULT, conditions=other)
    assert differences(RESULT, now) == ["model: tiny -> large", "power: unknown -> AC Power"]
    assert "The runs differ, so does their speed:\n\n- model" in comparison(RESULT, now)
    assert "differ" not in comparison(RESULT, RESULT)
