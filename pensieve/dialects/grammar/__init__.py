"""Turns tool schemas into an llguidance grammar that an answer must match."""
