"""The whole of pensieve on a real model: real server, real engine, real clients."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import httpx
import pytest

from pensieve.engine.client.launch import worker_variables
from tests.e2e.conftest import KEY, MODEL, Journey, free_port

CAPITAL = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": CAPITAL}]
GREEDY = {"temperature": 0}


@pytest.fixture
def client(server: Journey):
    with anthropic.Anthropic(base_url=server.base_url, api_key=KEY) as client:
        yield client


def ask(client: anthropic.Anthropic, question: str = CAPITAL, max_tokens: int = 24):
    return client.messages.create(
        model=MODEL,
        max_tokens=max_tokens,
        messages=[{"role": "user", "content": question}],
        extra_body=GREEDY,
    )


def test_a_question_is_answered(client: anthropic.Anthropic) -> None:
    message = ask(client)
    assert "Paris" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.role == "assistant"
    assert message._request_id.startswith("req_")


def test_a_stream_tells_the_same_as_the_whole(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    with client.messages.stream(
        model=MODEL, max_tokens=24, messages=MESSAGES, extra_body=GREEDY
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == whole.content[0].text == final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    )


def test_count_tokens_is_what_the_request_then_uses(client: anthropic.Anthropic) -> None:
    request = {"messages": MESSAGES, "system": "Answer in one word.", "model": MODEL}
    counted = client.messages.count_tokens(**request)
    usage = client.messages.create(max_tokens=1, **request).usage
    assert counted.input_tokens == (
        usage.input_tokens
        + (usage.cache_read_input_tokens or 0)
        + (usage.cache_creation_input_tokens or 0)
    )


def test_the_served_model_is_listed(client: anthropic.Anthropic) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == [MODEL, f"claude-local/{MODEL}"]
    assert client.models.retrieve(MODEL).max_input_tokens == 8192
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_wrong_key_and_a_bad_request_are_said_in_anthropics_words(server: Journey) -> None:
    with (
        anthropic.Anthropic(base_url=server.base_url, api_key="wrong") as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(stranger)
    answer = httpx.post(
        f"{server.base_url}/v1/messages",
        headers={"x-api-key": KEY},
        json={"model": MODEL, "messages": MESSAGES},
    )
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "type": "invalid_request_error",
        "message": "max_tokens: Field required",
    }
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_plain_http_sees_the_events_in_order(server: Journey) -> None:
    body = {"model": MODEL, "max_tokens": 8, "messages": MESSAGES, "stream": True, **GREEDY}
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{server.base_url}/v1/messages"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    payloads = [json.loads(line.removeprefix("data: ")) for line in lines if "data: " in line]
    assert [payload["type"] for payload in payloads] == names
    kinds = [name for name in names if name != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_a_stop_sequence_across_tokens_ends_the_answer(client: anthropic.Anthropic) -> None:
    whole = ask(client).content[0].text
    stop = whole[7:14]
    message = client.messages.create(
        model=MODEL, max_tokens=24, messages=MESSAGES, stop_sequences=[stop], extra_body=GREEDY
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == whole[: whole.index(stop)]


def test_the_chat_command_prints_the_answer_and_nothing_else(server: Journey) -> None:
    said = server.pensieve("chat", CAPITAL, "--temperature", "0")
    assert "Paris" in said.stdout
    assert "\x1b" not in said.stdout
    assert said.stdout.endswith("\n")
    assert said.stderr == ""


def test_the_embedded_model_is_sampled_as_its_makers_say(server: Journey) -> None:
    sampling = health(server)["sampling"]
    assert sampling["temperature"] == {"value": 0.2, "origin": "generation_config.json"}
    assert sampling["top_p"] == {"value": 0.9, "origin": "generation_config.json"}


REFERENCE = """
import json, sys
import mlx.core as mx
from pathlib import Path
from mlx_lm.generate import generate_step
from pensieve.engine.model.loading import load_weights
prompt, folder = json.load(sys.stdin)
model = load_weights(Path(folder), "cpu")
steps = generate_step(mx.array(prompt), model, max_tokens=16)
print(json.dumps([int(token) for token, _ in steps]))
"""


def model_folder(server: Journey) -> Path:
    (config,) = (server.home / "models").rglob("config.json")
    return config.parent


def test_greedy_output_is_mlx_lms_own_alone_and_in_company(
    server: Journey, client: anthropic.Anthropic
) -> None:
    """The reference is mlx-lm's single-sequence decoding in a process of its own, on the same arithmetic."""
    from pensieve.models.folder.snapshot import ModelFolder
    from pensieve.models.load import open_model

    folder = model_folder(server)
    tokenizer = open_model(ModelFolder(MODEL, MODEL, folder)).tokenizer
    prompt = tokenizer.encode(tokenizer.render([{"role": "user", "content": CAPITAL}]))
    reference = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([prompt, str(folder)]),
        env=os.environ | worker_variables("cpu"),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    expected_tokens = json.loads(reference.stdout.splitlines()[-1])
    detokenizer = tokenizer.detokenizer()
    expected = "".join(map(detokenizer.feed, expected_tokens)) + detokenizer.flush()

    assert client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens == len(prompt)
    alone = ask(client, max_tokens=16).content[0].text
    others = ["Name three colours.", "Say hello in French.", "What is two plus two?"]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, client, question, 16) for question in (CAPITAL, *others)]
        beside = answers[0].result().content[0].text
    assert expected.startswith(alone)
    assert len(alone) > 10
    assert beside == alone


def test_a_client_that_leaves_frees_its_place(server: Journey) -> None:
    body = {"model": MODEL, "max_tokens": 4000, "stream": True, **GREEDY}
    body["messages"] = [{"role": "user", "content": "Write a long story about a dragon."}]
    url = f"{server.base_url}/v1/messages"
    with httpx.stream("POST", url, json=body, headers={"x-api-key": KEY}, timeout=60) as response:
        lines = response.iter_lines()  # kept: a dropped iterator closes the connection
        next(lines)
        assert health(server)["in_flight"] == 1
    for _ in range(200):
        if health(server)["in_flight"] == 0:
            return
    raise AssertionError("the generation goes on without its client")


def health(server: Journey) -> dict:
    return httpx.get(f"{server.base_url}/health").json()


def worker_pids(server: Journey) -> list[int]:
    """Processes whose parent is the server."""
    found, parent = [], str(health(server)["pid"])
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields.get("PPid") == parent:
            found.append(int(status.parent.name))
    return found


def test_a_killed_worker_ends_the_stream_in_an_error_and_the_next_answer_comes(
    server: Journey,
) -> None:
    patient = anthropic.Anthropic(base_url=server.base_url, api_key=KEY, max_retries=10)
    with patient as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            stream_and_kill_the_worker(client, server)
        assert caught.value.type == "overloaded_error"
        assert health(server)["restarts"] == 1
        assert "Paris" in ask(client).content[0].text


def stream_and_kill_the_worker(client: anthropic.Anthropic, server: Journey) -> None:
    """Kill it after the third piece of text, and read on."""
    question = [{"role": "user", "content": "Write a long story about a dragon."}]
    with client.messages.stream(
        model=MODEL, max_tokens=500, messages=question, extra_body=GREEDY
    ) as stream:
        for seen, _ in enumerate(stream.text_stream):
            if seen == 2:
                (worker,) = worker_pids(server)
                os.kill(worker, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """An ended process whose parent has not asked for its exit code yet still has an entry."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_second_start_says_that_it_runs_already(server: Journey) -> None:
    said = server.start()
    assert "already" in said.stdout + said.stderr
    assert str(health(server)["pid"]) in said.stdout + said.stderr


def test_status_tells_what_runs(server: Journey) -> None:
    said = server.pensieve("status").stdout
    assert server.base_url in said
    assert MODEL in said


def test_stop_leaves_no_process_and_no_file(server: Journey) -> None:
    """On a server of its own, in the home whose model is already there, so that nothing needs the network."""
    own = Journey(server.home.parent / "own home", free_port())
    own.home.mkdir()
    (own.home / "models").symlink_to(server.home / "models")
    own.start()
    server_pid = health(own)["pid"]
    workers = worker_pids(own)
    own.pensieve("stop")
    assert workers
    assert not [pid for pid in (server_pid, *workers) if is_alive(pid)]
    assert not [path for path in (own.home / "state").rglob("*") if path.is_file()]
    assert own.pensieve("status", check=False).returncode == 3
    assert own.pensieve("stop").returncode == 0
