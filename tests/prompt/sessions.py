"""Simulate a client's session with one model: requests, answers, and the returned conversation."""

from collections.abc import Sequence
from typing import Any

from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.engine.generation import Finished, Started, Token
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.reply.reply import Reply, ReplyContext
from tests.prompt.chat_models import DIALECTS, MODELS

TOOLS = [
    {
        "name": "edit",
        "input_schema": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "line": {"type": "integer"}, "all": {}},
        },
    }
]
ASKED = {"role": "user", "content": "Edit it."}


class Session:
    """One model, its stored answers, and the conversation as the client has it."""

    def __init__(self, model: str, **fields: Any) -> None:
        self.model = model
        self.answers = GeneratedAnswers()
        self.renderer = PromptRenderer(MODELS[model], DIALECTS[model], answers=self.answers)
        self.messages: list[dict[str, Any]] = [ASKED]
        self.fields = {"tools": TOOLS, "system": "s"} | fields

    def prompt(self) -> Prompt:
        body = {"model": "m", "messages": self.messages, **self.fields}
        return self.renderer.render(decode(Conversation, body))

    def answer(self, tokens: Sequence[int], *, is_cut: bool = False) -> tuple[Prompt, Message]:
        """Let the model generate these tokens."""
        prompt = self.prompt()
        tokenizer = MODELS[self.model]
        marks = DIALECTS[self.model].marks(tokenizer.controls)
        context = ReplyContext(
            "msg_1", "m", len(prompt.tokens), "max_tokens", prompt.constraints.form
        )
        reply = Reply(context, tokenizer.detokenizer(prompt.tokens[-16:], marks))
        fold = MessageAccumulator()
        end = Finished("length" if is_cut else "stop_token", len(tokens) + 1)
        for generated in (Started(0), *map(Token, tokens), end):
            for event in reply.feed(generated):
                fold.feed(event)
        assert prompt.opening is not None
        self.answers.add(GeneratedAnswer(prompt.opening, tokens, fold.message.content))
        return prompt, fold.message

    def go_on(self, content: list[dict[str, Any]]) -> Prompt:
        """Send the client's next request: the answer as it has it, and results or text."""
        uses = [block["id"] for block in content if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": name, "content": "done"} for name in uses]
        more = results or [{"type": "text", "text": "And?"}]
        answer = {"role": "assistant", "content": content}
        self.messages += [answer, {"role": "user", "content": more}]
        return self.prompt()


def in_single_chars(model: str, text: str) -> list[int]:
    """Encode as the smallest possible tokens, as no encoder would but a model may."""
    controls = MODELS[model].controls
    tokens: list[int] = []
    at = 0
    while at < len(text):
        mark = max((name for name in controls if text.startswith(name, at)), key=len, default="")
        tokens += [controls[mark]] if mark else char_tokens(model, text[at])
        at += len(mark) or 1
    return tokens


def char_tokens(model: str, char: str) -> list[int]:
    """Encode one character without the prefix that a tokenizer might add."""
    tokenizer = MODELS[model]
    if model != "phi3":
        return tokenizer.encode(tokenizer.neutralize(char))
    vocabulary = tokenizer._tokenizer
    whole = vocabulary.token_to_id(char.replace(" ", "▁"))
    spelled = [vocabulary.token_to_id(f"<0x{byte:02X}>") for byte in char.encode()]
    return spelled if whole is None else [whole]


def as_client(message: Message) -> list[dict[str, Any]]:
    """Return the content as Claude Code does: defaults first, keys sorted, numbers for texts."""
    blocks = [block.model_dump() for block in message.content]
    for block in blocks:
        if block["type"] == "tool_use":
            arguments = {"all": False, **dict(sorted(block["input"].items()))}
            block["input"] = {
                key: int(v) if str(v).isdigit() else v for key, v in arguments.items()
            }
    return blocks


def call(model: str, **arguments: Any) -> str:
    return format_calls(DIALECTS[model].calls, [ToolCall("edit", arguments, "a12345678")])


def begins(prompt: Prompt, before: Prompt, tokens: Sequence[int]) -> bool:
    whole = (*before.tokens, *tokens)
    return prompt.tokens[: len(whole)] == whole
