"""Shapes become requests with exactly the prefixes that they say, and answers become tables."""

import json
import random
from dataclasses import replace

import pytest

from benchmarks.agent_traffic.session import (
    SESSION,
    Client,
    Conversation,
    Part,
    Prompt,
    Step,
    Turn,
    body_of,
    headers_of,
    read_turns,
    steps_of,
)
from benchmarks.agent_traffic.tables import (
    AFTER_KILL,
    COLD,
    KNOWN,
    WARM,
    Answer,
    Run,
    report,
    summary,
    turns_table,
)

HEAD = "kind,conversation,role,system,new,answer,starts,pause_s"
TOOLS, FOLDER, OTHER_FOLDER = Part("tools", 40), Part("folder", 10), Part("other", 10)
LAUNCH = Turn("launch", "main", "main", (TOOLS, FOLDER), 5, 8)
EDIT = Turn("edit", "main", "main", (), 3, 8)
OTHER_LAUNCH = replace(LAUNCH, conversation="other", system=(TOOLS, OTHER_FOLDER))


def words(tokens: int, source: random.Random) -> str:
    return " ".join(str(source.random()) for _ in range(tokens))


def rows(*lines: str) -> list[Turn]:
    return read_turns([HEAD, *lines])


def test_a_row_becomes_a_turn() -> None:
    assert rows("launch,main,main,tools:40 folder:10,5,8,after,2.5") == [
        replace(LAUNCH, pause_s=2.5)
    ]


@pytest.mark.parametrize(
    "row", ["launch,main,boss,tools:4,5,8,after,0", "launch,main,main,tools:4,5,8,soon,0"]
)
def test_an_unknown_role_or_start_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        rows(row)


def test_turns_that_run_together_are_one_step_and_a_kill_ends_it() -> None:
    turns = rows(
        "launch,main,main,tools:4,5,8,after,1",
        "title,title,side,titles:4,5,8,with,0",
        "kill,,,,,,,2",
        "edit,main,main,,3,8,after,0",
    )
    launch, title, _, edit = turns
    assert steps_of(turns) == [Step((launch, title), kill_after_s=2), Step((edit,))]


def test_a_scale_multiplies_lengths_and_pauses_but_leaves_something_of_each() -> None:
    turn = replace(LAUNCH, answer_tokens=400, pause_s=20).scaled(0.1)
    parts = (Part("tools", 4), Part("folder", 1))
    assert turn == Turn("launch", "main", "main", parts, 1, 40, "after", 2)
    assert LAUNCH.scaled(0.01).answer_tokens == 8


def test_the_coding_session_has_every_kind_of_traffic() -> None:
    turns = read_turns(SESSION.read_text(encoding="utf-8").splitlines())
    assert {"launch", "title", "edit", "agent", "compact", "compacted", "kill"} <= {
        turn.kind for turn in turns
    }
    client = Client(words)
    for step in steps_of(turns):
        for turn in step.turns:
            prompt = client.ask(turn)
            assert 0 <= prompt.shared_tokens < prompt.tokens
            client.answered(turn, "done")


def test_a_next_turn_begins_with_all_that_was_sent_and_answered() -> None:
    client = Client(words)
    first = client.ask(LAUNCH)
    client.answered(LAUNCH, "I read it.")
    second = client.ask(EDIT)
    assert second.conversation.system == first.conversation.system
    assert second.conversation.messages[:2] == (*first.conversation.messages, "I read it.")
    assert (first.shared_tokens, first.tokens) == (0, 55)
    assert (second.shared_tokens, second.tokens) == (55 + 8, 55 + 8 + 3)


def test_conversations_share_the_parts_that_they_both_begin_with_and_nothing_else() -> None:
    client = Client(words)
    first, other = client.ask(LAUNCH).conversation, client.ask(OTHER_LAUNCH)
    assert other.conversation.system[0] == first.system[0]
    assert other.conversation.system[1] != first.system[1]
    assert other.conversation.messages != first.messages
    assert other.shared_tokens == TOOLS.tokens
    again = client.ask(replace(LAUNCH, conversation="again"))
    assert again.conversation.system == first.system
    assert again.shared_tokens == TOOLS.tokens + FOLDER.tokens


def test_a_seed_gives_the_same_texts_and_another_one_gives_others() -> None:
    first = Client(words, seed=1).ask(LAUNCH)
    assert Client(words, seed=1).ask(LAUNCH) == first
    assert Client(words, seed=2).ask(LAUNCH).conversation.system[0] != first.conversation.system[0]


def test_a_conversation_without_a_system_text_is_refused() -> None:
    with pytest.raises(ValueError, match="system text"):
        Client(words).ask(EDIT)


def test_a_body_on_each_wire_has_the_whole_conversation() -> None:
    conversation = Conversation(("tools", "folder"), ("question", "answer", "next"))
    cached = {"type": "ephemeral"}
    earlier = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "answer"},
    ]
    assert body_of("anthropic", conversation, 8, "m") == {
        "model": "m",
        "max_tokens": 8,
        "stream": True,
        "temperature": 0,
        "system": [
            {"type": "text", "text": "tools", "cache_control": cached},
            {"type": "text", "text": "folder", "cache_control": cached},
        ],
        "messages": [
            *earlier,
            {
                "role": "user",
                "content": [{"type": "text", "text": "next", "cache_control": cached}],
            },
        ],
    }
    assert body_of("openai", conversation, 8, "m") == {
        "model": "m",
        "max_tokens": 8,
        "stream": True,
        "temperature": 0,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "tools\n\nfolder"},
            *earlier,
            {"role": "user", "content": "next"},
        ],
    }


def test_agents_and_side_requests_are_marked_as_those_of_a_session() -> None:
    assert headers_of(LAUNCH) == {}
    session = {"x-claude-code-session-id": "replay"}
    assert headers_of(replace(LAUNCH, role="side")) == session
    agent = headers_of(replace(LAUNCH, role="agent", conversation="agent-1"))
    assert agent == session | {"x-claude-code-agent-id": "agent-1"}


def answer(turn: Turn, tokens: int, shared_tokens: int, **measured: object) -> Answer:
    return Answer(turn, Prompt(Conversation(()), tokens, shared_tokens), **measured)  # type: ignore[arg-type]


ANSWERS = [
    answer(LAUNCH, 100, 0, first_token_s=4.0, end_s=5.0, prompt_tokens=110, cached_tokens=0),
    answer(EDIT, 120, 100, first_token_s=1.0, end_s=2.0, prompt_tokens=130, cached_tokens=104),
    answer(EDIT, 140, 120, first_token_s=3.0, end_s=4.0, prompt_tokens=160, freeze_s=0.5),
    answer(EDIT, 160, 140, first_token_s=9.0, end_s=9.5, is_after_kill=True, freeze_s=0.25),
    answer(OTHER_LAUNCH, 100, 40, first_token_s=2.0, end_s=2.5),
    answer(EDIT, 200, 160, error="refused"),
]


def test_a_summary_has_medians_by_what_the_prompt_met() -> None:
    figures = summary(Run("peer", ANSWERS, restarts_s=[2.0]))
    assert {name: figures[name] for name in (COLD, WARM, AFTER_KILL, KNOWN)} == {
        COLD: 4.0,
        WARM: 2.0,
        AFTER_KILL: 9.0,
        KNOWN: 2.0,
    }
    assert figures["ready again after SIGKILL, s"] == 2.0
    assert figures["longest freeze of a running answer, s"] == 0.5
    assert figures["failed turns"] == 1


def test_hit_rates_count_only_the_turns_of_which_the_server_reports_them() -> None:
    figures = summary(Run("peer", ANSWERS))
    assert figures["cached of all prompt tokens, %"] == pytest.approx(100 * 104 / 240)
    assert figures["shared of all prompt tokens, %"] == pytest.approx(100 * 400 / 620)
    assert "cached of all prompt tokens, %" not in summary(Run("peer", ANSWERS[3:]))


def test_a_table_of_turns_has_a_column_for_each_server() -> None:
    table = turns_table([Run("one", ANSWERS), Run("two", ANSWERS[::-1]), Run("three", ANSWERS)])
    lines = table.splitlines()
    assert lines[0].split() == ["new", "shared", "one", "two", "three"]
    assert lines[2].split() == ["launch,", "main", "100", "0", "4.00", "0%", "failed", "4.00", "0%"]
    assert lines[3].split()[4:] == ["1.00", "80%", "2.00", "not", "told", "1.00", "80%"]
    assert lines[5].startswith("edit, main KILLED")
    assert max(map(len, lines)) <= 80


def test_a_report_is_json_without_the_texts() -> None:
    text = json.dumps(report(Run("peer", ANSWERS, restarts_s=[2.0])))
    first = json.loads(text)["answers"][0]
    assert first["turn"] == "launch, main"
    assert first["shape"] == {"tokens": 100, "shared_tokens": 0}
    assert first["first_token_s"] == 4.0
    assert "system" not in text
