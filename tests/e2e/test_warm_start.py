"""A restarted server has the last project's system prompt in memory before the first request."""

from pathlib import Path

import anthropic

from tests.e2e.installation import KEY, MODEL, Installation, installation_with_model

SYSTEM = "You are the keeper of a lighthouse on a cliff, and you answer every ship in rhymes. " * 20


def ask(own: Installation, question: str) -> anthropic.types.Message:
    with anthropic.Anthropic(base_url=own.base_url, api_key=KEY, timeout=300) as client:
        return client.messages.create(
            model=MODEL,
            max_tokens=8,
            extra_body={"temperature": 0},
            system=SYSTEM,
            messages=[{"role": "user", "content": question}],
        )


def test_first_request_after_a_restart_finds_its_system_prompt_in_memory(
    server: Installation, tmp_path: Path
) -> None:
    own = installation_with_model(server, tmp_path / "own home")
    own.start()
    cold = ask(own, "Which ship is that?")
    # At once: the worker writes what is not on disk yet before it ends.
    own.pensieve("stop")
    own.start()
    own.wait_for("prompts of the last projects are back in memory: 1 (")
    for file in (own.home / "prefixes").glob("*/*.kv"):
        file.unlink()
    warm = ask(own, "Where does the fog come from?")
    again = ask(own, "Where does the fog come from?")
    own.pensieve("stop", "--force")
    assert cold.usage.cache_read_input_tokens == 0
    assert (warm.usage.cache_read_input_tokens or 0) > 250
    assert warm.content == again.content
