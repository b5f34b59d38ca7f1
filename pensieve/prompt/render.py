"""A conversation as prompt tokens, and the `Generation` that a call asks for.

The same tokens are counted by `count_tokens` and generated from, so the two never differ. No client text ever becomes
a control token: every turn is neutralized whole, after its blocks were joined.
"""

from dataclasses import dataclass
from typing import Literal

from pensieve.api.request import Conversation, MessagesRequest
from pensieve.engine.generation import Generation, Sampling
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.prompt.abilities import SystemTurns, system_turns
from pensieve.prompt.template import ChatTokenizer
from pensieve.prompt.turns import ChatTurn, chat_turns, merged

LengthStop = Literal["max_tokens", "model_context_window_exceeded"]


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What bounds a generation on the served model. context_tokens: prompt and answer together."""

    context_tokens: int
    stop_tokens: frozenset[int]


@dataclass(frozen=True, slots=True)
class BoundedGeneration:
    """A generation, and what it means when its length ends it: the client's limit or the model's context."""

    generation: Generation
    length_stop: LengthStop


class PromptRenderer:
    """Renders conversations for one model. Tries its chat template once, when made."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._abilities = system_turns(tokenizer)

    def prompt_tokens(self, conversation: Conversation) -> tuple[int, ...]:
        """The prompt's token ids. A final assistant turn is continued: its text is the prompt's end.

        Raises `InvalidRequestError` where the conversation cannot be rendered.
        """
        turns = fold_system_turns(chat_turns(conversation), self._abilities)
        prefill = ""
        if turns and turns[-1].role == "assistant":
            prefill = turns.pop().text.rstrip()
        if not turns:
            raise InvalidRequestError('messages: first message must use the "user" role')
        neutralize = self._tokenizer.neutralize
        rendered = self._tokenizer.render(
            [{"role": turn.role, "content": neutralize(turn.text)} for turn in turns]
        )
        return tuple(self._tokenizer.encode(rendered + neutralize(prefill)))


def fold_system_turns(turns: list[ChatTurn], abilities: SystemTurns) -> list[ChatTurn]:
    """Turns that the template writes whole: system turns it would not take become user text in their place."""
    return merged(
        turn if turn.role != "system" or _is_taken(index, abilities) else _as_user(index, turn)
        for index, turn in enumerate(turns)
    )


def _is_taken(index: int, abilities: SystemTurns) -> bool:
    return abilities.first if index == 0 else abilities.between


def _as_user(index: int, turn: ChatTurn) -> ChatTurn:
    if index == 0:
        return ChatTurn("user", turn.text)
    return ChatTurn("user", f"<system-reminder>\n{turn.text}\n</system-reminder>")


def bounded_generation(
    call: MessagesRequest, prompt_tokens: tuple[int, ...], limits: ModelLimits
) -> BoundedGeneration:
    """What the engine is asked for. max_tokens is cut to what the context has left, never refused.

    Raises `PromptTooLongError` where the prompt leaves no room for an answer.
    """
    room = limits.context_tokens - len(prompt_tokens)
    if room < 1:
        raise PromptTooLongError(len(prompt_tokens), limits.context_tokens)
    generation = Generation(
        prompt_tokens=prompt_tokens,
        max_tokens=min(call.max_tokens, room),
        stop_tokens=limits.stop_tokens,
        sampling=_sampling(call),
    )
    is_cut = call.max_tokens > room
    return BoundedGeneration(
        generation, "model_context_window_exceeded" if is_cut else "max_tokens"
    )


def _sampling(call: MessagesRequest) -> Sampling:
    """A nucleus of no mass holds the likeliest token alone: greedy."""
    if call.top_p == 0:
        return Sampling(temperature=0.0)
    return Sampling(temperature=call.temperature, top_p=call.top_p, top_k=call.top_k)
