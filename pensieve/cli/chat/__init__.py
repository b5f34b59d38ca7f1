"""`pensieve chat`: one question, or a conversation on a terminal. Talks to the server as any client does."""
