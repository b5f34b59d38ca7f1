"""Several answers to one prompt, generated together. Most requests want one."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message, OutputTokensDetails, Usage
from pensieve.engine.generation import NO_DRAFTS, DraftCounts
from pensieve.server.messages.completion import Completion, OnAnswer

# Events, and the index of their answer.
EmitChoice = Callable[[list[MessageEvent], int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Choices:
    completions: Sequence[Completion]  # at least one

    async def run(self, emit: EmitChoice, *, on_answer: OnAnswer | None = None) -> Message:
        """Generate all, as `Completion.run` does; return the first message.

        `emit` is called for one answer at a time. If one fails, so do the others.
        """
        first, *others = self.completions
        if not others:
            return await first.run(partial(_emit_first, emit), on_answer=on_answer)
        messages: dict[int, Message] = {}
        lock = anyio.Lock()

        async def run(choice: int, completion: Completion) -> None:
            async def emit_alone(events: list[MessageEvent]) -> None:
                async with lock:
                    await emit(events, choice)

            messages[choice] = await completion.run(emit_alone, on_answer=on_answer)

        try:
            async with anyio.create_task_group() as tasks:
                for choice, completion in enumerate(self.completions):
                    tasks.start_soon(run, choice, completion)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return messages[0]

    @property
    def usage(self) -> Usage:
        """The usage so far: the prompt counts once, as far as it was processed."""
        usages = [completion.reply.usage for completion in self.completions]
        prompt = min(usages, key=lambda usage: usage.cache_read_input_tokens)
        thinking = sum(usage.output_tokens_details.thinking_tokens for usage in usages)
        return prompt.model_copy(
            update={
                "output_tokens": sum(usage.output_tokens for usage in usages),
                "output_tokens_details": OutputTokensDetails(thinking_tokens=thinking),
            }
        )

    @property
    def drafts(self) -> DraftCounts:
        return sum((completion.reply.drafts for completion in self.completions), NO_DRAFTS)


async def _emit_first(emit: EmitChoice, events: list[MessageEvent]) -> None:
    await emit(events, 0)
