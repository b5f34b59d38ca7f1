"""Only a holder of the key can answer a challenge, and only for its own port."""

import pytest

from pensieve.peer_proof import Prover, new_challenge

OURS = Prover("our own key ü")
CHALLENGE = "0123456789abcdef" * 2


def test_a_proof_with_the_same_key_is_accepted() -> None:
    assert OURS.is_proof(Prover("our own key ü").proof(CHALLENGE, 7777), CHALLENGE, 7777)


@pytest.mark.parametrize(
    "answer",
    [
        Prover("another key").proof(CHALLENGE, 7777),
        OURS.proof(CHALLENGE, 7778),
        OURS.proof(CHALLENGE[::-1], 7777),
        *["", CHALLENGE, "\ud800", None, 5, ["x"], {"proof": 1}],
    ],
)
def test_other_proofs_are_rejected(answer: object) -> None:
    assert not OURS.is_proof(answer, CHALLENGE, 7777)


@pytest.mark.parametrize("challenge", ["", "x" * 32, CHALLENGE + "0", CHALLENGE.upper(), "\0" * 32])
def test_a_malformed_challenge_gets_an_empty_proof(challenge: str) -> None:
    assert OURS.proof(challenge, 7777) == ""
    assert not OURS.is_proof("", challenge, 7777)


def test_challenges_are_unique() -> None:
    challenges = {new_challenge() for _ in range(100)}
    assert len(challenges) == 100
    assert all(OURS.proof(challenge, 1) for challenge in challenges)
