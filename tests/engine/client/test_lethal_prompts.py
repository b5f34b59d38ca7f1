"""Which prompt is blamed for a worker's death, and how it is refused."""

import re
from dataclasses import dataclass, field

import pytest

from pensieve.engine.client.lethal_prompts import (
    MAX_REMEMBERED,
    LethalPrompts,
    Phase,
    PromptInProgress,
)
from pensieve.engine.client.open_requests import OpenRequest, OpenRequests, WorkerHandle
from pensieve.engine.generation import Admitted, Generation, Prefilled, Requeued, Started
from pensieve.engine.protocol import Frame
from pensieve.errors import InvalidRequestError, LethalRequestError, PromptUnprocessableError

PROMPT = tuple(range(100))
BYSTANDER = tuple(range(50, 80))


@dataclass
class SentFrames:
    """A worker's connection that keeps what is sent."""

    frames: list[Frame] = field(default_factory=list)

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)


def after_deaths(*deaths: list[PromptInProgress]) -> LethalPrompts:
    poison = LethalPrompts()
    for in_progress in deaths:
        poison.note_death(in_progress)
    return poison


def prefilled(done_tokens: int = 0) -> list[PromptInProgress]:
    return [PromptInProgress(PROMPT, "prefill", done_tokens)]


def test_one_death_makes_a_suspect_but_refuses_nothing() -> None:
    poison = after_deaths(prefilled())
    assert poison.refusal(PROMPT) is None
    assert poison.is_suspect(PROMPT)
    assert poison.count == 0


def test_second_death_in_prefill_is_refused_with_the_progress_and_no_limit() -> None:
    poison = after_deaths(prefilled(), prefilled(done_tokens=64))
    for prompt in (PROMPT, (*PROMPT, *PROMPT)):
        refusal = poison.refusal(prompt)
        assert isinstance(refusal, PromptUnprocessableError)
        assert isinstance(refusal, InvalidRequestError)
        assert refusal.message == (
            "prompt is too long to be processed here: the engine ended 2 times at its first 100"
            " tokens, the last time after 64. It is refused until the server restarts; a shorter or"
            " another one may be answered."
        )
    assert poison.count == 1


def test_refusal_reads_as_too_long_for_clients_without_a_limit() -> None:
    """Claude Code 2.1.332 searches for the phrase and the numbers separately, in lower case."""
    message = str(after_deaths(prefilled(), prefilled(done_tokens=64)).refusal(PROMPT)).lower()
    assert "prompt is too long" in message
    assert not re.search(r"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)", message)


def test_refusal_blames_no_length_if_nothing_was_processed() -> None:
    refusal = after_deaths(prefilled(), prefilled()).refusal(PROMPT)
    assert isinstance(refusal, LethalRequestError)
    assert "too long" not in refusal.message
    assert "2 times while it began with this prompt" in refusal.message


def test_cached_tokens_count_as_processed() -> None:
    request = OpenRequest(Generation(PROMPT, max_tokens=1))
    for event in (Started(32), Admitted()):
        request.handle(event)
    assert (request.phase, request.done_tokens) == ("prefill", 32)
    request.handle(Prefilled(48))
    assert (request.phase, request.done_tokens) == ("prefill", 48)


def test_requeued_prompt_is_not_in_progress_until_it_is_admitted_again() -> None:
    request = OpenRequest(Generation(PROMPT, max_tokens=1))
    for event in (Started(0), Admitted(), Requeued()):
        request.handle(event)
    assert request.phase is None
    request.handle(Admitted())
    assert request.phase == "prefill"


def test_all_prompts_in_a_shared_prefill_are_in_progress() -> None:
    handle = WorkerHandle(SentFrames())
    for key in (1, 2, 3):
        handle.submit(key, OpenRequest(Generation((key,), max_tokens=1)), runs_alone=False)
    handle.dispatch([(1, Admitted()), (2, Admitted()), (1, Requeued()), (3, Admitted())])
    assert [work.tokens for work in handle.in_progress] == [(2,), (3,)]


def test_submitted_request_names_the_number_of_those_that_are_being_prepared() -> None:
    connection = SentFrames()
    requests = OpenRequests()
    requests.worker = WorkerHandle(connection)
    requests.expected = 2
    requests.submit(OpenRequest(Generation(PROMPT, max_tokens=1)))
    assert [frame.followers for frame in connection.frames] == [2]


def test_second_death_in_decode_is_an_engine_error() -> None:
    decoded = [PromptInProgress(PROMPT, "decode", len(PROMPT))]
    assert isinstance(after_deaths(decoded, decoded).refusal(PROMPT), LethalRequestError)


def test_deaths_in_different_phases_do_not_add_up() -> None:
    assert after_deaths(prefilled(), [PromptInProgress(PROMPT, "decode")]).refusal(PROMPT) is None


def test_shared_deaths_refuse_no_prompt() -> None:
    shared = [*prefilled(), PromptInProgress(BYSTANDER, "decode")]
    poison = after_deaths(shared, shared, shared)
    assert poison.refusal(PROMPT) is None
    assert poison.refusal(BYSTANDER) is None
    assert poison.is_suspect(PROMPT)
    assert poison.is_suspect(BYSTANDER)


def test_shared_death_counts_against_the_prompt_alone_at_the_next_one() -> None:
    poison = after_deaths([*prefilled(), PromptInProgress(BYSTANDER, "decode")], prefilled())
    assert isinstance(poison.refusal(PROMPT), LethalRequestError)
    assert poison.refusal(BYSTANDER) is None


def test_answered_prompt_is_no_longer_a_suspect() -> None:
    poison = after_deaths([*prefilled(), PromptInProgress(BYSTANDER, "decode")])
    poison.note_finished(BYSTANDER)
    assert not poison.is_suspect(BYSTANDER)
    assert poison.is_suspect(PROMPT)


@pytest.mark.parametrize(("phase", "is_refused"), [("prefill", True), ("decode", False)])
def test_prompt_that_begins_with_one_lethal_in_prefill_is_refused(
    phase: Phase, is_refused: bool
) -> None:
    poison = after_deaths([PromptInProgress(PROMPT, phase)], [PromptInProgress(PROMPT, phase)])
    assert (poison.refusal((*PROMPT, 1, 2)) is not None) == is_refused
    assert poison.refusal(PROMPT[:-1]) is None


def test_only_the_latest_suspects_are_remembered() -> None:
    poison = after_deaths(prefilled(), prefilled())
    for number in range(MAX_REMEMBERED):
        poison.note_death([PromptInProgress((number,), "prefill")])
    assert poison.refusal(PROMPT) is None
    assert poison.is_suspect((0,))
