"""Fingerprints of stored prefixes differ by API key: a shared one would let one client probe the
prompts of another token by token."""

import os
from pathlib import Path

from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.planning.kv_precision import FULL
from pensieve.engine.worker.build import fingerprint_of
from pensieve.engine.worker.parts import WHOLE, ModelShare
from pensieve.server.run import prefix_salt_of
from pensieve.settings.resolve import DEFAULT_API_KEY


class Plan:
    precision = FULL


def fingerprint(folder: Path, *salts: str) -> bytes:
    return fingerprint_of(folder, Plan(), "cpu", *salts)


def test_fingerprint_differs_between_api_keys(tmp_path: Path) -> None:
    one, other = prefix_salt_of("a key"), prefix_salt_of("another key")
    found = {fingerprint(tmp_path, salt) for salt in ("", one, other)}
    assert len(found) == 3
    assert fingerprint(tmp_path, one) == fingerprint(tmp_path, prefix_salt_of("a key"))
    assert "a key" not in one


def test_fingerprint_of_the_default_key_has_no_salt(tmp_path: Path) -> None:
    assert fingerprint(tmp_path, prefix_salt_of(DEFAULT_API_KEY)) == fingerprint(tmp_path)


def test_fingerprint_changes_when_weights_of_the_same_size_are_rewritten(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    os.utime(weights, ns=(0, 1_700_000_000_000_000_001))
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    weights.write_bytes(b"two")
    os.utime(weights, ns=(0, 1_700_000_000_000_000_002))
    assert fingerprint(tmp_path) != before


def test_load_frame_contains_the_salt(tmp_path: Path) -> None:
    spec = WorkerSpec(tmp_path, "cpu", tmp_path, prefix_salt="salt")
    assert spec.load_frame.prefix_salt == "salt"


def test_fingerprint_differs_between_shares_of_a_model(tmp_path: Path) -> None:
    shares = [
        *(ModelShare(0, 2, "ring"), ModelShare(1, 2, "ring")),
        *(ModelShare(0, 4, "ring"), ModelShare(0, 2, "jaccl")),
    ]
    found = {fingerprint_of(tmp_path, Plan(), "cpu", share=share) for share in shares}
    assert len(found | {fingerprint(tmp_path)}) == 5
    assert fingerprint_of(tmp_path, Plan(), "cpu", share=WHOLE) == fingerprint(tmp_path)
