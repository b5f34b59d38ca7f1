"""How a server shows that it knows the key, before a client sends it: an answer to a challenge, keyed by the key.

The answer is for one port, so that a program on another port cannot pass on the real server's. Anybody may ask for one, so
guessing a weak key from it is made slow. The default key is known to all: an answer keyed by it shows nothing.
"""

import hashlib
import hmac
import re
import secrets
from functools import cached_property

CHALLENGE_HEADER = "pensieve-challenge"
# The field of `GET /health` that holds the answer.
PROOF_FIELD = "proof"
# 60 ms (2026-11-30, two-core Linux machine), once for each process that asks or answers.
ITERATIONS = 100_000
_SALT = b"pensieve peer proof 1"
_CHALLENGE = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Prover:
    """Answers challenges with one key, and checks answers. Deriving takes a moment at the first use."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def proof(self, challenge: str, port: int) -> str:
        """Return the answer to `challenge` of whoever serves on `port`; empty where that is no challenge."""
        if not _CHALLENGE.fullmatch(challenge):
            return ""
        return hmac.digest(self._derived, f"{challenge} {port}".encode(), "sha256").hex()

    def is_proof(self, answer: object, challenge: str, port: int) -> bool:
        """Whether `answer` could only be given by one who knows the key."""
        expected = self.proof(challenge, port).encode()
        given = answer.encode(errors="replace") if isinstance(answer, str) else b""
        return bool(expected) and hmac.compare_digest(given, expected)

    @cached_property
    def _derived(self) -> bytes:
        return hashlib.pbkdf2_hmac(
            "sha256", self._api_key.encode(errors="replace"), _SALT, ITERATIONS
        )


def new_challenge() -> str:
    """Return one that was never asked before."""
    return secrets.token_hex(16)
