"""The bodies of `GET /activity` and `GET /activity/history`, as a busy server sends them."""

from typing import Any

NOW = 1764561600.0

HEALTH: dict[str, Any] = {
    "status": "ready",
    "model": "qwen3-coder-30b",
    "repo": "someone/qwen3-coder-30b",
    "context_tokens": 131072,
    "detail": "",
    "restarts": 1,
    "in_flight": 3,
    "device": "metal",
    "version": "0.9.0",
    "engine": {
        "memory_limit_bytes": 24_000_000_000,
        "weights_bytes": 15_100_000_000,
        "kv_used_bytes": 2_000_000_000,
        "prefix_memory_bytes": 1_100_000_000,
        "prefix_disk_bytes": 6_000_000_000,
        "prefix_disk_cap_bytes": 20_000_000_000,
        "written_today_bytes": 300_000_000,
        "daily_write_budget_bytes": 10_000_000_000,
        "is_writing_paused": False,
        "tokens_per_second": 42.13,
        "tokens_per_step": 1.62,
        "prompt_tokens_per_second": 1204.5,
        "preempted": 3,
        "worker_bytes": 16_900_000_000,
    },
}


def open_request(phase: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "req_1",
        "route": "/v1/messages",
        "wire": "anthropic",
        "client": "claude-code",
        "session": "3f2a9c1e",
        "priority": "main",
        "is_streamed": True,
        "phase": phase,
        "age_s": 12.3,
        "prompt_tokens": None,
        "cached_tokens": None,
        "processed_tokens": None,
        "prompt_tokens_per_second": None,
        "remaining_s": None,
        "output_tokens": 0,
        "max_tokens": 1024,
        "tokens_per_second": None,
        **fields,
    }


PROMPT = open_request(
    "prompt",
    prompt_tokens=4012,
    cached_tokens=0,
    processed_tokens=1536,
    prompt_tokens_per_second=130.2,
    remaining_s=19.0,
)
ANSWER = open_request(
    "answer",
    client="codex",
    session=None,
    age_s=84.0,
    prompt_tokens=60_100,
    cached_tokens=59_000,
    processed_tokens=60_100,
    remaining_s=0.0,
    output_tokens=128,
    tokens_per_second=42.1,
)
QUEUED = open_request("queued", client="pensieve-chat", session=None, prompt_tokens=812, age_s=3.2)


def finished(ended_s_ago: float, **fields: Any) -> dict[str, Any]:
    return {
        "id": "req_0",
        "ended_at": NOW - ended_s_ago,
        "route": "/v1/messages",
        "wire": "anthropic",
        "client": "claude-code",
        "session": "3f2a9c1e",
        "priority": "main",
        "status": 200,
        "is_client_gone": False,
        "total_s": 4.21,
        "queue_s": 0.0,
        "prompt_s": 0.6,
        "first_token_s": 0.8,
        "answer_s": 3.4,
        "prompt_tokens": 4012,
        "cached_tokens": 3900,
        "output_tokens": 128,
        "tokens_per_second": 42.1,
        "drafted": 0,
        "accepted": 0,
        "diverged_at": None,
        "content": None,
        **fields,
    }


REPLICAS = [
    {
        "name": "worker-1",
        "state": "ready",
        "detail": "",
        "worker_pid": 11,
        "in_flight": 3,
        "queued": 1,
        "restarts": 0,
        "tokens_per_second": 40.25,
    },
    {
        "name": "studio.local",
        "state": "loading",
        "detail": "The connection to studio.local was lost; loading again.",
        "worker_pid": None,
        "in_flight": 0,
        "queued": None,
        "restarts": 1,
        "tokens_per_second": None,
    },
]


def activity(*requests: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"at": NOW, "health": HEALTH, "requests": list(requests), **fields}


def history(**fields: Any) -> dict[str, Any]:
    return {
        "at": NOW,
        "interval_s": 10,
        "speed": [[NOW - 3600 + 10 * at, 20.0 + at % 40] for at in range(0, 360, 3)],
        "first_token": [[NOW - 3600 + 10 * at, 0.5 + at % 7] for at in range(0, 360, 5)],
        "recent": [
            finished(12),
            finished(75, is_client_gone=True, status=None, output_tokens=17),
            finished(400, client="codex", session=None, diverged_at=1204, cached_tokens=1204),
            finished(
                9000,
                status=529,
                prompt_tokens=None,
                cached_tokens=None,
                output_tokens=None,
                first_token_s=None,
                tokens_per_second=None,
                total_s=0.02,
            ),
            *(finished(10_000 + 60 * at) for at in range(20)),
        ],
        "findings": [
            {
                "severity": "warning",
                "title": "disk",
                "explanation": "2.1 GB are left; prefixes are not written below 5 GB.",
                "fix": "pensieve cache clear\npensieve models",
            }
        ],
        "log": [],
        **fields,
    }
