"""A replay against a real HTTP server with a scripted engine: streams, usage, kill and failure."""

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio
import pytest

from benchmarks.agent_traffic.session import Client, Step, Turn, Wire, read_turns, steps_of
from benchmarks.agent_traffic.tables import Run
from benchmarks.engine import Server, Stream, record
from benchmarks.replay import Replay, Subject, begun, play
from pensieve.engine.generation import Finished, Started, Token
from tests.benchmarks.test_agent_traffic import HEAD, words
from tests.server.serving import app_of, listening
from tests.support.fakes import ScriptedEngine, says

TURNS = read_turns(
    [
        HEAD,
        "launch,main,main,tools:4,5,8,after,0",
        "edit,main,main,,3,8,after,0",
    ]
)


def subject_at(url: str, wire: Wire = "anthropic") -> Subject:
    server = Server("peer", url, "", None)
    return Subject("peer", wire, lambda: nullcontext(server), "any", is_killed=False)


async def run_of(subject: Subject, turns: list[Turn]) -> Run:
    with begun([subject], 0) as (replay,):
        await play([replay], steps_of(turns))
        return replay.run


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
async def test_a_server_is_measured_on_either_wire_and_gets_its_own_answers_back(
    wire: Wire,
) -> None:
    engine = ScriptedEngine([says("x"), says("First.", cached_tokens=2), says("Second.")])
    async with listening(app_of(engine)) as url:
        run = await run_of(subject_at(url, wire), TURNS)
    launch, edit = run.answers
    assert not launch.error
    assert 0 < launch.first_token_s <= launch.end_s
    assert (launch.cached_tokens, edit.cached_tokens) == (2, 0)
    prompts = [generation.prompt_tokens for generation in engine.generations]
    assert [launch.prompt_tokens, edit.prompt_tokens] == [len(prompt) for prompt in prompts[1:]]
    assert launch.answer_tokens == len("First.") + 1
    assert b"First." in bytes(token for token in prompts[2] if token < 256)


async def test_a_turn_during_an_answer_begins_at_its_first_token() -> None:
    is_joined = anyio.Event()
    running = [Started(0), Token(ord("a")), is_joined, Token(ord("b")), Finished("stop_token", 2)]
    engine = ScriptedEngine([running, [is_joined.set, *says("ok")]])
    turns = read_turns(
        [
            HEAD,
            "question,main,main,tools:4,5,8,after,0",
            "agent,agent,agent,agent:4,5,8,during,0",
        ]
    )
    with anyio.fail_after(20):
        async with listening(app_of(engine)) as url:
            with Replay(subject_at(url), Client(words)) as replay:
                await replay.step(Step(tuple(turns)))
    question, agent = replay.run.answers
    assert question.freeze_s is not None
    assert question.freeze_s > 0
    assert agent.freeze_s is None


async def test_a_refused_turn_is_noted_and_the_session_continues() -> None:
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine, context_tokens=1000)) as url:
        with Replay(subject_at(url), Client(words)) as replay:
            for turn in (large(), *TURNS):
                await replay.step(Step((turn,)))
    assert [bool(answer.error) for answer in replay.run.answers] == [True, False, False]


def large() -> Turn:
    (turn,) = read_turns([HEAD, "launch,large,main,tools:400,5,8,after,0"])
    return turn


class Killable:
    """Starts processes in place of a server that stays."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.processes: list[subprocess.Popen[bytes]] = []

    def launch(self) -> AbstractContextManager[Server]:
        process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        self.processes.append(process)
        return nullcontext(Server("peer", self._url, "", process))


async def test_a_killed_server_is_started_again_and_its_next_answer_is_marked() -> None:
    turns = [*TURNS[:1], *read_turns([HEAD, "kill,,,,,,,0"]), *TURNS[1:]]
    async with listening(app_of(ScriptedEngine([says("ok")]))) as url:
        peer = Killable(url)
        subject = Subject("peer", "anthropic", peer.launch, "any")
        run = await run_of(subject, turns)
    killed, other = peer.processes
    assert killed.wait() == -9
    other.kill()
    other.wait()
    assert [answer.is_after_kill for answer in run.answers] == [False, True]
    assert len(run.restarts_s) == 1


def recorded(*payloads: dict[str, Any]) -> Stream:
    stream = Stream()
    for payload in payloads:
        record(payload, stream, 1.0)
    return stream


def test_usage_of_anthropics_api_adds_up_over_its_events() -> None:
    stream = recorded(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "message_delta", "usage": {"output_tokens": 7, "cache_read_input_tokens": 40}},
    )
    assert (stream.prompt_tokens, stream.cached_tokens, stream.output_tokens) == (45, 40, 7)


def test_usage_of_openais_api_counts_cached_tokens_as_a_part() -> None:
    usage = {"prompt_tokens": 45, "completion_tokens": 7}
    told = recorded({"usage": usage | {"prompt_tokens_details": {"cached_tokens": 40}}})
    assert (told.prompt_tokens, told.cached_tokens, told.output_tokens) == (45, 40, 7)
    assert recorded({"usage": usage | {"prompt_tokens_details": None}}).cached_tokens is None
