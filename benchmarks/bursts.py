"""Bursts: 4 and 8 short requests at once to several servers in turns. For benchmarks/engine.py.

Each server gets the same prompts of 40 tokens, others in each turn. A figure is the median of its
turns. The longest gap is that of an answer that runs beside another burst.
"""

# pyright: basic

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

PROMPT_TOKENS = 40
SIZES = (4, 8)  # requests
ANSWERS = (16, 64)  # tokens of each
# Of the other answer, which runs longer than the burst.
_OTHER_TOKENS = 160
# Between two bursts, for the work after an answer.
_PAUSE_S = 0.3

Figures = dict[str, float]
Server = Any  # benchmarks.engine.Server
MakePrompt = Callable[[int], str]  # of a number of tokens


async def burst(server: Server, prompts: Sequence[str], answer_tokens: int) -> Figures:
    """Send all prompts at once and wait for all answers."""
    name = f"burst of {len(prompts)} x {answer_tokens}"
    started = time.perf_counter()
    answers = await asyncio.gather(*(server.stream(prompt, answer_tokens) for prompt in prompts))
    seconds = time.perf_counter() - started
    firsts = [answer.ttft_s for answer in answers]
    return {
        f"{name}, tok/s": sum(answer.output_tokens for answer in answers) / seconds,
        f"{name}, median first token, s": statistics.median(firsts),
        f"{name}, last first token, s": max(firsts),
    }


async def gap_during_burst(
    server: Server, other: str, prompts: Sequence[str], answer_tokens: int
) -> Figures:
    """Return the longest gap of an answer that runs while a burst begins and ends."""
    running = asyncio.create_task(server.stream(other, _OTHER_TOKENS))
    await asyncio.sleep(0.5)
    await burst(server, prompts, answer_tokens)
    name = f"burst of {len(prompts)} x {answer_tokens}, longest gap of another answer, s"
    return {name: (await running).longest_gap_s}


async def turn(
    make_prompt: MakePrompt, servers: Sequence[Server], size: int, answer_tokens: int
) -> dict[str, Figures]:
    """Return each server's figures of one burst, and of another one during an answer."""
    prompts = [make_prompt(PROMPT_TOKENS) for _ in range(size)]
    others = [make_prompt(PROMPT_TOKENS) for _ in range(size)]
    other = make_prompt(PROMPT_TOKENS)
    figures: dict[str, Figures] = {}
    for server in servers:
        await asyncio.sleep(_PAUSE_S)
        alone = await burst(server, prompts, answer_tokens)
        await asyncio.sleep(_PAUSE_S)
        figures[server.name] = alone | await gap_during_burst(server, other, others, answer_tokens)
    return figures


async def in_turns(
    make_prompt: MakePrompt,
    servers: Sequence[Server],
    turns: int,
    sizes: Sequence[int] = SIZES,
    answers: Sequence[int] = ANSWERS,
) -> dict[str, Figures]:
    """Return the median of each figure over the turns; one turn before them warms up."""
    medians: dict[str, Figures] = {server.name: {} for server in servers}
    for size in sizes:
        for answer_tokens in answers:
            all_figures = [
                await turn(make_prompt, servers, size, answer_tokens) for _ in range(turns + 1)
            ][1:]
            for name, figures in medians.items():
                for figure in all_figures[0][name]:
                    figures[figure] = statistics.median(each[name][figure] for each in all_figures)
    return medians
