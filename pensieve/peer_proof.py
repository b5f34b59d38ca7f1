"""A server's proof that it knows the API key, before a client sends the key.

The server answers a challenge with an HMAC keyed by the API key. The answer holds for one port, so
that a program on another port cannot relay the real server's. Any program may ask for an answer, so
key derivation is slow to hinder guessing. The default key is public: with it an answer proves
nothing.
"""

import hashlib
import hmac
import re
import secrets
from functools import cached_property

CHALLENGE_HEADER = "pensieve-challenge"
# The field of `GET /health` that holds the answer.
PROOF_FIELD = "proof"
# 60 ms (2026-11-30, two-core Linux machine), once per process that asks or answers.
ITERATIONS = 100_000
_SALT = b"pensieve peer proof 1"
_CHALLENGE = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Prover:
    """Answers challenges and checks answers with one key. The first use derives a key (60 ms)."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def proof(self, challenge: str, port: int) -> str:
        """Return the answer to `challenge` for the server on `port`; empty for a malformed
        challenge.
        """
        if not _CHALLENGE.fullmatch(challenge):
            return ""
        return hmac.digest(self._derived, f"{challenge} {port}".encode(), "sha256").hex()

    def is_proof(self, answer: object, challenge: str, port: int) -> bool:
        """Whether `answer` proves knowledge of the key."""
        expected = self.proof(challenge, port).encode()
        actual = answer.encode(errors="replace") if isinstance(answer, str) else b""
        return bool(expected) and hmac.compare_digest(actual, expected)

    @cached_property
    def _derived(self) -> bytes:
        return hashlib.pbkdf2_hmac(
            "sha256", self._api_key.encode(errors="replace"), _SALT, ITERATIONS
        )


def new_challenge() -> str:
    return secrets.token_hex(16)
