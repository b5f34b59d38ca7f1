"""`pensieve chat`: one question, or a conversation on a terminal. Talks to the server as any client does."""

from pensieve.cli.chat.command import chat

__all__ = ["chat"]
