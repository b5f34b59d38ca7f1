"""A client's session with one model: what it sends, what the model says to it, and how the client has that afterwards."""

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
    """One model, its answers as generated, and the conversation as the client has it."""

    def __init__(self, model: str, **fields: Any) -> None:
        self.model = model
        self.spoken = GeneratedAnswers()
        self.renderer = PromptRenderer(MODELS[model], DIALECTS[model], spoken=self.spoken)
        self.messages: list[dict[str, Any]] = [ASKED]
        self.fields = {"tools": TOOLS, "system": "s"} | fields

    def prompt(self) -> Prompt:
        body = {"model": "m", "messages": self.messages, **self.fields}
        return self.renderer.render(decode(Conversation, body))

    def answer(self, tokens: Sequence[int], *, is_cut: bool = False) -> tuple[Prompt, Message]:
        """Let the model say these tokens."""
        prompt = self.prompt()
        tokenizer = MODELS[self.model]
        marks = DIALECTS[self.model].marks(tokenizer.controls)
        asked = ReplyContext("msg_1", "m", len(prompt.tokens), "max_tokens", prompt.plan.form)
        reply = Reply(asked, tokenizer.detokenizer(prompt.tokens[-16:], marks))
        fold = MessageAccumulator()
        end = Finished("length" if is_cut else "stop_token", len(tokens) + 1)
        for event in (Started(0), *map(Token, tokens), end):
            for said in reply.feed(event):
                fold.feed(said)
        assert prompt.opening is not None
        self.spoken.keep(GeneratedAnswer(prompt.opening, tokens, fold.message.content))
        return prompt, fold.message

    def go_on(self, content: list[dict[str, Any]]) -> Prompt:
        """What the client sends next: the answer as it has it, and results or words."""
        uses = [block["id"] for block in content if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": name, "content": "done"} for name in uses]
        more = results or [{"type": "text", "text": "And?"}]
        said = {"role": "assistant", "content": content}
        self.messages += [said, {"role": "user", "content": more}]
        return self.prompt()


def in_single_letters(model: str, text: str) -> list[int]:
    """Tokens that no encoder would make of a text, but a model may: as small as can be, and control tokens."""
    controls = MODELS[model].controls
    tokens: list[int] = []
    at = 0
    while at < len(text):
        mark = max((name for name in controls if text.startswith(name, at)), key=len, default="")
        tokens += [controls[mark]] if mark else letter_tokens(model, text[at])
        at += len(mark) or 1
    return tokens


def letter_tokens(model: str, letter: str) -> list[int]:
    """One letter, with nothing before it that a tokenizer would put there."""
    tokenizer = MODELS[model]
    if model != "phi3":
        return tokenizer.encode(tokenizer.neutralize(letter))
    vocabulary = tokenizer._tokenizer
    whole = vocabulary.token_to_id(letter.replace(" ", "▁"))
    spelled = [vocabulary.token_to_id(f"<0x{byte:02X}>") for byte in letter.encode()]
    return spelled if whole is None else [whole]


def as_client(message: Message) -> list[dict[str, Any]]:
    """The content as Claude Code sends it back: defaults in front, keys sorted, numbers for their texts."""
    blocks = [block.model_dump() for block in message.content]
    for block in blocks:
        if block["type"] == "tool_use":
            given = {"all": False, **dict(sorted(block["input"].items()))}
            block["input"] = {key: int(v) if str(v).isdigit() else v for key, v in given.items()}
    return blocks


def call(model: str, **given: Any) -> str:
    return format_calls(DIALECTS[model].calls, [ToolCall("edit", given, "a12345678")])


def begins(prompt: Prompt, before: Prompt, tokens: Sequence[int]) -> bool:
    whole = (*before.tokens, *tokens)
    return prompt.tokens[: len(whole)] == whole
