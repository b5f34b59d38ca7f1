"""What each of several engines was sent, kept over restarts of the server."""

import stat
from pathlib import Path

from pensieve.engine.client.prefix_table import BLOCK_TOKENS, PrefixTable, block_hashes
from pensieve.engine.client.router import Replica
from pensieve.engine.client.sent_prompts import remembering
from tests.engine.client.test_router import CachingEngine

FIRST, SECOND = (block_hashes([token] * 4 * BLOCK_TOKENS) for token in (1, 2))


def replica(name: str = "me@studio.local") -> Replica:
    return Replica(name, CachingEngine(), table=PrefixTable(6), lost=PrefixTable(6))


def sent(folder: Path | None, *prompts: list[bytes]) -> None:
    one = replica()
    with remembering(one, folder):
        for hashes in prompts:
            one.table.add(hashes)


def test_engine_of_a_new_server_is_known_to_have_what_it_was_sent(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    sent(folder, FIRST)
    other, same = replica("studio.local"), replica()
    with remembering(other, folder), remembering(same, folder):
        assert other.match(FIRST) == 0
        # An engine that has it for sure is better.
        assert 3 * BLOCK_TOKENS < same.match(FIRST) < 4 * BLOCK_TOKENS
    [file] = folder.glob("sent-me*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_prompts_of_several_servers_are_kept_up_to_the_limit(tmp_path: Path) -> None:
    sent(tmp_path, FIRST)
    sent(tmp_path, SECOND)
    sent(tmp_path)
    one = replica()
    with remembering(one, tmp_path):
        # The last blocks of the earlier prompt have been forgotten.
        assert (one.lost.match(FIRST), one.lost.match(SECOND)) == (128, 256)


def test_damaged_or_missing_file_and_folder_are_a_cold_beginning(tmp_path: Path) -> None:
    sent(tmp_path, FIRST)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[3:])
    one = replica()
    with remembering(one, tmp_path):
        assert one.match(FIRST) == 0
    sent(None, FIRST)
    (tmp_path / "file").touch()
    sent(tmp_path / "file", FIRST)
