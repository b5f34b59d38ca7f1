"""`pensieve chat`: one question, or a conversation on a terminal; a client like any other."""
