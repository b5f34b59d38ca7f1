"""A real server, engine and clients on the embedded model."""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import httpx
import pytest

from pensieve.engine.client.launch import worker_variables
from tests.e2e.installation import (
    KEY,
    MODEL,
    Installation,
    health,
    worker_pids,
)
from tests.support.programs import run_program

CAPITAL = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": CAPITAL}]
GREEDY = {"temperature": 0}


@pytest.fixture
def client(server: Installation):
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


def test_count_tokens_with_a_system_prompt_equals_the_usage(client: anthropic.Anthropic) -> None:
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


def test_errors_are_those_of_anthropics_api(server: Installation) -> None:
    with (
        anthropic.Anthropic(base_url=server.base_url, api_key="wrong") as other,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(other)
    response = httpx.post(
        f"{server.base_url}/v1/messages",
        headers={"x-api-key": KEY},
        json={"model": MODEL, "messages": MESSAGES},
    )
    assert response.status_code == 400
    assert response.json()["error"] == {
        "type": "invalid_request_error",
        "message": "max_tokens: Field required",
    }
    assert response.json()["request_id"] == response.headers["request-id"]


def test_stream_events_over_plain_http_are_in_order(server: Installation) -> None:
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


def test_chat_prints_only_the_answer(server: Installation) -> None:
    done = server.pensieve("chat", CAPITAL, "--temperature", "0")
    assert "Paris" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith("\n")
    assert done.stderr == ""


def test_sampling_defaults_come_from_the_models_config(server: Installation) -> None:
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


def model_folder(server: Installation) -> Path:
    (config,) = (server.home / "models").rglob("config.json")
    return config.parent


def test_greedy_output_equals_mlx_lms_alone_and_batched(
    server: Installation, client: anthropic.Anthropic
) -> None:
    """The reference is mlx-lm's single-sequence decoding in another process, equally compiled."""
    from pensieve.models.folder.snapshot import ModelFolder
    from pensieve.models.load import open_model

    folder = model_folder(server)
    tokenizer = open_model(ModelFolder(MODEL, MODEL, folder)).tokenizer
    prompt = tokenizer.encode(tokenizer.render([{"role": "user", "content": CAPITAL}]))
    reference = run_program(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([prompt, str(folder)]),
        env=os.environ | worker_variables("cpu"),
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
        batched = answers[0].result().content[0].text
    assert expected.startswith(alone)
    assert len(alone) > 10
    assert batched == alone


def test_a_disconnected_client_frees_its_slot(server: Installation) -> None:
    body = {"model": MODEL, "max_tokens": 4000, "stream": True, **GREEDY}
    body["messages"] = [{"role": "user", "content": "Write a long story about a dragon."}]
    url = f"{server.base_url}/v1/messages"
    with httpx.stream("POST", url, json=body, headers={"x-api-key": KEY}, timeout=60) as response:
        lines = response.iter_lines()  # named, since a dropped iterator closes the connection
        next(lines)
        assert health(server)["in_flight"] == 1
    assert any(health(server)["in_flight"] == 0 for _ in range(200))


def test_a_killed_worker_ends_the_stream_with_an_error_and_is_replaced(
    server: Installation,
) -> None:
    retrying = anthropic.Anthropic(base_url=server.base_url, api_key=KEY, max_retries=10)
    with retrying as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            stream_and_kill_the_worker(client, server)
        assert caught.value.type == "overloaded_error"
        assert health(server)["restarts"] == 1
        assert "Paris" in ask(client).content[0].text


def stream_and_kill_the_worker(client: anthropic.Anthropic, server: Installation) -> None:
    """Kill the worker after the third delta and read the rest of the stream."""
    question = [{"role": "user", "content": "Write a long story about a dragon."}]
    with client.messages.stream(
        model=MODEL, max_tokens=500, messages=question, extra_body=GREEDY
    ) as stream:
        for index, _ in enumerate(stream.text_stream):
            if index == 2:
                (worker,) = worker_pids(server)
                os.kill(worker, signal.SIGKILL)


def test_a_second_start_reports_the_running_server(server: Installation) -> None:
    done = server.start()
    assert "already" in done.stdout + done.stderr
    assert str(health(server)["pid"]) in done.stdout + done.stderr


def test_status_has_url_and_model(server: Installation) -> None:
    status = server.pensieve("status").stdout
    assert server.base_url in status
    assert MODEL in status
