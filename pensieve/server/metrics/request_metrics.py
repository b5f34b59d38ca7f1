"""Metrics of requests, counted as they happen.

Labels have bounded sets of values: paths of operations, statuses, wires and priorities.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from pensieve.server.activity.record import RequestRecord

# Nginx's status for a client that left before the response began.
CLIENT_GONE = 499
# The time that fewer tokens take says nothing about the speed of many.
MIN_PROMPT_TOKENS, MIN_ANSWER_TOKENS = 64, 16

# Upper bounds. A Mac decodes 10 to 150 tokens per second; a gap is long while a prompt is processed
# between two tokens.
_GAP_S = (
    *(0.001, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
_FIRST_TOKEN_S = (
    *(0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0),
    *(60.0, 90.0, 120.0, 180.0, 300.0, 600.0),
)
_TOTAL_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_PREFILL_RATES = (
    *(25.0, 50.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0, 800.0),
    *(1000.0, 1500.0, 2000.0, 3000.0, 5000.0, 10_000.0),
)
_DECODE_RATES = (
    *(1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0),
    *(100.0, 150.0, 200.0, 300.0),
)


class RequestMetrics:
    """Listens to the records of requests. Used on the event loop alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"pensieve_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"pensieve_{name}", text, labels, registry=registry, buckets=buckets)

        self._requests = counter("requests", "Ended requests.", "route", "status", "wire")
        self._first_token_s = histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to the first token of its answer.",
            _FIRST_TOKEN_S,
            "priority",
        )
        self._total_s = histogram(
            "request_duration_seconds",
            "From the arrival of a request for an answer to its end.",
            _TOTAL_S,
            "priority",
        )
        self._gap_s = histogram(
            "inter_token_seconds", "Between two tokens of an answer, as they arrive.", _GAP_S
        )
        self._prefill_rate = histogram(
            "prefill_tokens_per_second",
            "Speed of a request's prompt, without cached tokens and waiting.",
            _PREFILL_RATES,
        )
        self._decode_rate = histogram(
            "decode_tokens_per_second",
            "Speed of a request's answers, from the first token to the last.",
            _DECODE_RATES,
        )
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts, cached ones included.")
        self._cached_tokens = counter(
            "cached_prompt_tokens", "Tokens of prompts that were in the prefix cache."
        )
        self._output_tokens = counter("output_tokens", "Tokens of answers.")
        self._pictures = counter("pictures", "Pictures in prompts, also those that were cached.")

    def note_token(self, gap_s: float | None) -> None:
        if gap_s is not None:
            self._gap_s.observe(gap_s)

    def note_ended(self, record: RequestRecord) -> None:
        status = str(record.status or CLIENT_GONE)
        self._requests.labels(record.route, status, record.wire).inc()
        if not record.generations:
            return
        prompt_tokens, cached_tokens = record.processed_tokens or 0, record.cached_tokens or 0
        self._total_s.labels(record.priority).observe(record.total_s)
        self._prompt_tokens.inc(prompt_tokens)
        self._cached_tokens.inc(cached_tokens)
        self._output_tokens.inc(record.output_tokens)
        self._pictures.inc(record.pictures)
        if (first_token_s := record.first_token_s) is None:
            return
        self._first_token_s.labels(record.priority).observe(first_token_s)
        new_tokens, prompt_s = prompt_tokens - cached_tokens, record.phase_s["prompt"]
        if new_tokens >= MIN_PROMPT_TOKENS and prompt_s:
            self._prefill_rate.observe(new_tokens / prompt_s)
        rate = record.tokens_per_second
        if record.output_tokens >= MIN_ANSWER_TOKENS and rate:
            self._decode_rate.observe(rate)
