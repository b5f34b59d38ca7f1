"""Calls by the real embedded model at temperature 1: whatever it means to say, what it calls is valid.

A few in the ordinary run; `python -m benchmarks.grammar --calls MODEL_FOLDER` makes as many as fit its time.
"""

import json

import anyio
import jsonschema
import pytest
from tokenizers import Tokenizer

from pensieve.engine.client import running_engine
from pensieve.engine.generation import Engine, Finished, Generation, Grammar, Sampling, Token
from pensieve.engine.launch import WorkerSpec
from tests.e2e.conftest import Journey
from tests.embedded_model import embedded_model_folder
from tests.engine import grammar_cases as cases

pytestmark = pytest.mark.anyio

TOOLS: dict[str, cases.Schema] = {
    "set_light": cases.closed(
        ["room", "is_on"], room={"enum": ["kitchen", "hall", "Küche"]}, is_on=cases.FLAG
    ),
    "remember": cases.closed(["note"], note=cases.short()),
    "add": cases.closed(["left", "right"], left=cases.COUNT, right=cases.COUNT),
}
FORCED = [cases.forced(TOOLS), *(cases.forced({name: TOOLS[name]}) for name in TOOLS)]
# A model this small opens no call by itself: after a few words it has to.
IN_TEXT = cases.in_text(TOOLS, "+", free="/[A-Za-z ,.]{0,20}/").replace("call+ TEXT", "call")


async def answer(engine: Engine, tokenizer: Tokenizer, lark: str) -> tuple[str, str]:
    """What it says, and why it ends."""
    asked = "<|im_start|>user\nUse a tool.<|im_end|>\n<|im_start|>assistant\n"
    generation = Generation(
        tuple(tokenizer.encode(asked).ids),
        max_tokens=120,
        stop_tokens=frozenset({tokenizer.token_to_id("<|im_end|>")}),
        sampling=Sampling(temperature=1.0),
        grammar=Grammar(lark),
    )
    tokens: list[int] = []
    async with engine.generate(generation) as events:
        async for event in events:
            if isinstance(event, Token):
                tokens.append(event.token_id)
            if isinstance(event, Finished):
                return tokenizer.decode(tokens), event.reason
    raise AssertionError("an answer without an end")


def check(said: str) -> None:
    call = json.loads(said)
    jsonschema.validate(call["arguments"], TOOLS[call["name"]])


async def test_every_call_of_the_real_model_is_valid(journey: Journey) -> None:
    folder = embedded_model_folder(journey.home).folder
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers: dict[str, list[tuple[str, str]]] = {"forced": [], "in text": []}
    async with running_engine(WorkerSpec(folder, "cpu")) as engine:
        while engine.health.state != "ready":
            await anyio.sleep(0.05)

        async def ask(kind: str, lark: str) -> None:
            answers[kind].append(await answer(engine, tokenizer, lark))

        async with anyio.create_task_group() as tasks:
            for lark in FORCED:
                tasks.start_soon(ask, "forced", lark)
            for _ in range(2):
                tasks.start_soon(ask, "in text", IN_TEXT)
    assert {reason for _, reason in answers["forced"] + answers["in text"]} == {"stop_token"}
    for said, _ in answers["forced"]:
        check(said)
    for said, _ in answers["in text"]:
        check(said.partition("<call>")[2].removesuffix("</call>"))
