"""Batches, files and the OpenAPI document on a server with a real model."""

from collections.abc import Iterator
from itertools import repeat

import anthropic
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.installation import KEY, MODEL, Installation, installation_with_model
from tests.server.metrics.scraping import Samples, moved, samples_of
from tests.support.pdfs import document_of, pdf_of
from tests.support.ports import has_ipv6

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(server: Installation) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.base_url, api_key=KEY) as client:
        yield client


def entry(custom_id: str, **more: object) -> dict[str, object]:
    params = {"model": MODEL, "max_tokens": 12, "messages": QUESTION, "temperature": 0}
    return {"custom_id": custom_id, "params": params | more}


def outcome(server: Installation, client: anthropic.Anthropic, batch_id: str) -> dict[str, object]:
    """Wait for the end of a batch and return its results by custom id.

    Follows the log, since polling takes time from the engine.
    """
    server.wait_for(f"{batch_id} ended")
    assert client.messages.batches.retrieve(batch_id).processing_status == "ended"
    return {line.custom_id: line.result for line in client.messages.batches.results(batch_id)}


def test_a_batch_is_answered(server: Installation, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(
        requests=[entry("one"), entry("two"), entry("bad", max_tokens="x")]
    )
    results = outcome(server, client, batch.id)
    assert "Paris" in results["one"].message.content[0].text
    assert results["one"].message.content == results["two"].message.content
    assert results["one"].message.usage.service_tier == "batch"
    assert results["bad"].error.error.message == "max_tokens: Input should be a valid integer"
    assert client.messages.batches.delete(batch.id).id == batch.id


def test_a_batch_continues_after_a_restart(server: Installation) -> None:
    own = installation_with_model(server, server.home.parent / "batch home")
    own.start()
    with anthropic.Anthropic(base_url=own.base_url, api_key=KEY, max_retries=8) as client:
        requests = [entry(str(number)) for number in range(6)]
        batch = client.messages.batches.create(requests=requests)
        own.pensieve("stop")
        own.start()
        assert client.messages.batches.retrieve(batch.id).request_counts.processing
        results = outcome(own, client, batch.id)
    own.pensieve("stop")
    assert len(results) == 6
    assert {result.type for result in results.values()} == {"succeeded"}


FACT = "The code word is swordfish."


def code_word(client: anthropic.Anthropic, document: dict[str, object]) -> str:
    content = [document, {"type": "text", "text": "The code word?"}]
    message = client.messages.create(
        model=MODEL,
        max_tokens=16,
        messages=[{"role": "user", "content": content}],
        extra_body={"temperature": 0},
    )
    return message.content[0].text.lower()


def test_a_referenced_file_is_in_the_prompt(client: anthropic.Anthropic) -> None:
    file = client.files.upload(file=("fact.txt", FACT.encode(), "text/plain"))
    source = {"type": "file", "file_id": file.id}
    assert "swordfish" in code_word(client, {"type": "document", "source": source})
    client.files.delete(file.id)


def test_a_pdf_is_in_the_prompt(client: anthropic.Anthropic) -> None:
    assert "swordfish" in code_word(client, document_of(pdf_of(FACT)))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_loopback_is_the_server_by_every_name_and_needs_no_key(
    server: Installation, host: str
) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 here")
    listed = httpx.get(f"http://{host}:{server.port}/v1/models", trust_env=False)
    assert [model["id"] for model in listed.json()["data"]] == [MODEL, f"claude-local/{MODEL}"]


def test_the_openapi_document_needs_no_key(server: Installation) -> None:
    document = httpx.get(f"{server.base_url}/openapi.json").json()
    assert "/v1/messages/batches" in document["paths"]


def scrape(server: Installation) -> Samples:
    text = httpx.get(f"{server.base_url}/metrics", trust_env=False).text
    return samples_of(text_string_to_metric_families(text))


def test_metrics_follow_the_answers_of_a_real_model(
    server: Installation, client: anthropic.Anthropic
) -> None:
    """The second answer has its prompt from the cache, and both have a grammar that forces some of
    their tokens.
    """
    schema = {"type": "object", "properties": {"metrics": {"enum": ["counted"]}}}
    schema |= {"required": ["metrics"], "additionalProperties": False}
    before = scrape(server)
    for _ in range(2):
        message = client.messages.create(
            model=MODEL,
            max_tokens=60,
            messages=[{"role": "user", "content": f"Count what there is. {'Count it. ' * 30}"}],
            extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        )
        assert '"counted"' in message.content[0].text
    after = scrape(server)
    found = moved(before, after)
    counted = {name: value for (name, *labels), value in found.items() if not labels}
    assert found["pensieve_requests_total", "/v1/messages", "200", "anthropic"] == 2
    assert counted["pensieve_prompt_tokens_total"] > 180
    assert counted["pensieve_cached_prompt_tokens_total"] > 60
    assert counted["pensieve_output_tokens_total"] == 2 * message.usage.output_tokens
    assert counted["pensieve_inter_token_seconds_count"] > 2
    assert counted["pensieve_prefill_tokens_per_second_count"] >= 1
    assert counted["pensieve_grammar_compile_seconds_total"] > 0
    weights_bytes = after["pensieve_weights_bytes",]
    assert 0 < weights_bytes < after["pensieve_worker_memory_bytes",]
    assert weights_bytes < after["pensieve_memory_limit_bytes",]
    # The worker reports its memory once a second.
    scrapes = map(scrape, repeat(server, 2000))
    assert any(each["pensieve_prefix_memory_bytes",] > 0 for each in scrapes)
    assert after["pensieve_disk_write_quota_bytes",] > 0
    assert after["pensieve_engine_state", "ready"] == 1
