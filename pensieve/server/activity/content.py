"""The texts of a request and its answer, where the setting `show_content` keeps them."""

from collections.abc import Callable
from dataclasses import replace

from pensieve.api.messages.content_blocks import TextBlock
from pensieve.api.messages.message import Message, TextContent
from pensieve.api.messages.request import Conversation
from pensieve.server.activity.record import Content, RequestRecord

MAX_CHARS = 500
OnAnswer = Callable[[Message], None]


def keeping_content(
    record: RequestRecord, asked: Conversation | str, on_answer: OnAnswer | None
) -> OnAnswer:
    """Keep what the user asked for; return what also keeps a whole answer."""
    text = asked if isinstance(asked, str) else _last_user_text(asked)
    content = record.content = Content(_shortened(text))

    def keep_answer(message: Message) -> None:
        texts = [block.text for block in message.content if isinstance(block, TextContent)]
        record.content = replace(content, answer=_shortened("\n".join(texts)))
        if on_answer is not None:
            on_answer(message)

    return keep_answer


def _last_user_text(conversation: Conversation) -> str:
    """Skip turns with nothing but tool results."""
    for turn in reversed(conversation.messages):
        texts = [block.text for block in turn.content if isinstance(block, TextBlock)]
        if turn.role == "user" and texts:
            return "\n".join(texts)
    return ""


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
