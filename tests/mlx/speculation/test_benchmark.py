"""The parts of benchmarks/speculation.py on a tiny model: answers are played back in all modes."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.engine import Bench
from benchmarks.playback import played_back
from benchmarks.speculation import (
    MODES,
    Http,
    Process,
    Row,
    Run,
    line,
    retokenized,
    rows_of,
    turns,
)
from benchmarks.speculation_simulation import Case, cases, numbered, request
from pensieve.engine.generation import Sampling
from pensieve.engine.model import batch
from pensieve.engine.protocol import Load
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.load import open_model
from tests.support import tiny_models
from tests.support.device import DEVICE

FILE = "".join(f"def value_{at}(left, right):\n    return left + {at}\n" for at in range(12))
BODY = request("Write the file.", ("Read", {"file_path": "a.py"}, numbered(FILE)))
TEXTS = [("copy", BODY, FILE), ("prose", BODY, "The water in the river comes from far away.")]
COPY, PROSE = Row("copy", (0,)), Row("prose", (1,))
TOGETHER = Row("both", (0, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_models.folder_of("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def written(model: ModelFolder) -> list[Case]:
    return list(cases(open_model(model), TEXTS))


def test_answers_are_played_back_with_and_without_drafts_alone_and_together(
    model: ModelFolder, written: list[Case], tmp_path: Path
) -> None:
    load = Load(str(model.folder), DEVICE, str(tmp_path))
    rows = [COPY, PROSE, TOGETHER]
    answers = [tuple(case.answer) for case in written]
    with played_back(answers), Process(load, written, rows) as process:
        for row in rows:
            runs = turns(process, row, MODES, 2)
            assert list(runs) == list(MODES)
            expected = tuple(answers[number] for number in row.numbers)
            assert {run.answers for each in runs.values() for run in each} == {expected}
            assert all(run.rate > 0 for each in runs.values() for run in each)


def test_own_answers_are_those_of_the_model(
    model: ModelFolder, written: list[Case], tmp_path: Path
) -> None:
    row = Row("own", (1,), is_own=True)
    with (
        played_back([case.answer for case in written]),
        Process(Load(str(model.folder), DEVICE, str(tmp_path)), written, [row]) as process,
    ):
        plain, lookup = process.run(row, "plain"), process.run(row, "lookup")
    assert len(plain.answers[0]) == len(written[1].answer)
    assert plain.answers != (tuple(written[1].answer),)
    assert lookup.answers == plain.answers


def test_playback_ends_with_its_block() -> None:
    original = batch.make_sampler
    with played_back([[1, 2]]):
        assert batch.make_sampler is not original
        greedy = Sampling(temperature=0)
        assert batch.make_sampler(greedy) is original(greedy)
    assert batch.make_sampler is original


def test_answers_are_played_back_through_http(
    model: ModelFolder, written: list[Case], tmp_path: Path
) -> None:
    bench = Bench(model.folder, DEVICE, tmp_path)
    bodies = [body for _, body, _ in TEXTS]
    with Http(bench, bodies, [case.answer for case in written], [PROSE]) as http:
        for mode in (MODES[0], MODES[2]):
            assert http.run(PROSE, mode).answers == (TEXTS[1][2],)


def test_tokens_of_a_random_models_texts_are_words_in_its_vocabulary(tmp_path: Path) -> None:
    folder = tiny_models.build("phi3-longrope", tmp_path)
    small = open_model(ModelFolder("tiny", "tiny", folder))
    own = open_model(ModelFolder("tiny", "tiny", retokenized(folder)))
    (copy, _), (before, _) = cases(own, TEXTS), cases(small, TEXTS)
    assert max(map(max, copy.texts)) < tiny_models.PHI3_VOCABULARY
    assert len(copy.answer) < 0.7 * len(before.answer)
    controls = ("<|user|>", "<|assistant|>", "<|end|>")
    assert [own.tokenizer.controls[text] for text in controls] == [32010, 32001, 32007]


def run_of(rate: float, ends_s: Sequence[float] = (1.0,)) -> Run:
    return Run(((1, 2),), tuple(ends_s), rate, 2.0)


def test_line_has_the_median_of_the_turns_ratios() -> None:
    runs = {
        "plain": [run_of(10.0), run_of(20.0), run_of(10.0)],
        "lookup": [run_of(10.0), run_of(30.0), run_of(20.0)],
        "+ shadow": [run_of(40.0), run_of(50.0), run_of(10.0)],
    }
    text = line(Row("rewrite, code block", (0,)), runs)
    assert "1.00 1.50 2.00" in text
    assert "   1.50" in text
    assert text.endswith("below 3.0")
    runs["+ shadow"] = [run_of(40.0), run_of(80.0), run_of(10.0)]
    assert "below" not in line(Row("rewrite, code block", (0,)), runs)


def test_line_of_several_answers_has_the_longest_wait() -> None:
    plain, drafted = run_of(10.0, (1.0, 1.0)), run_of(20.0, (0.5, 1.25))
    text = line(TOGETHER, {"plain": [plain], "lookup": [drafted], "+ shadow": [drafted]})
    assert text.endswith("1.25")


def test_rows_are_chosen_by_parts_of_their_names() -> None:
    names = ["rewrite, code block", "9 JSON calls", "prose"]
    assert [row.name for row in rows_of(names, ["JSON"])] == ["9 JSON calls"]
    assert {row.is_own for row in rows_of(names, ["own"])} == {True}
    assert [row.numbers for row in rows_of(names, ["four"])] == [(0, 1, 2), (2, 2, 2, 2)]
