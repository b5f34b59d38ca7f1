"""Causes of crashes by the lines that Metal, MLX, macOS and pensieve log."""

import pytest

from pensieve.doctor.checks.crashes import CAUSES, classify, exception_of

# As reported; the table in crashes.py names the sources.
PANIC = (
    'panic(cpu 9 caller 0xfffffe004b8cd288): "completeMemory() prepare count underflow" '
    "@IOGPUMemory.cpp:550"
)
GROUP_PANIC = (
    'panic(cpu 0): "IOGPUGroupMemory::remove_memory_object() memory object not found" '
    "@IOGPUGroupMemory.cpp:323"
)
ABORT = "libc++abi: terminating due to uncaught exception of type std::runtime_error: "
WATCHDOG = (
    f"{ABORT}[METAL] Command buffer execution failed: Impacting Interactivity "
    f"(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)"
)
MEMORY = (
    f"{ABORT}[METAL] Command buffer execution failed: Insufficient Memory "
    f"(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
TIMEOUT = (
    f"{ABORT}[METAL] Command buffer execution failed: Caused GPU Timeout Error "
    f"(00000002:kIOGPUCommandBufferCallbackErrorTimeout)"
)
IGNORED = (
    f"{ABORT}[METAL] Command buffer execution failed: Ignored (for causing "
    f"prior/excessive GPU errors) "
    f"(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)"
)
LARGE = (
    "[metal::malloc] Attempting to allocate 38654705664 bytes which is greater than the "
    "maximum allowed buffer size of 22613000192 bytes."
)
KILLED = (
    "2026-11-26T02:00:00Z WARNING The engine worker ended by itself (signal 9); starting "
    "it again in 0.5 s"
)
WATCHDOGD = (
    "panic(cpu 4 caller 0xfffffe002a3b1a28): watchdog timeout: no checkins from "
    "watchdogd in 93 seconds (2169 total checkins since monitoring last enabled)"
)
BUFFERS = "RuntimeError: [metal::malloc] Resource limit (499000) exceeded."
ALLOCATE = "RuntimeError: [malloc] Unable to allocate 1073741824 bytes."
KERNEL = f"{ABORT}[metal::Device] Unable to load kernel steel_attention_float16_bq32_bk16_bd96"
METALLIB = f"{ABORT}Failed to load the default metallib. library not found"
ABORTED = (
    "2026-11-26T02:00:00Z WARNING The engine worker ended by itself (exit code 6); "
    "starting it again in 0.5 s"
)
HUNG = (
    "2026-11-26T02:00:00Z WARNING The engine worker hung: nothing came for 45 s while "
    "processing 512 tokens after 0; starting it again in 0.5 s"
)
LOOP = (
    "2026-11-26T02:00:00Z ERROR the engine has failed: The engine worker ended by itself "
    "(exit code 1), again and again: not started any more."
)
FACTS = {
    PANIC: ("kernel panic", "Update macOS"),
    GROUP_PANIC: ("kernel panic", "unwired"),
    WATCHDOG: ("watchdog", "smaller model"),
    HUNG: ("hung", "doctor --bundle"),
    MEMORY: ("out of memory", "memory_gb"),
    TIMEOUT: ("GPU timeout", "restart"),
    IGNORED: ("GPU gave up", "restart"),
    LARGE: ("buffer too large", "pensieve models"),
    WATCHDOGD: ("system watchdog", "unwired"),
    BUFFERS: ("too many buffers", "pensieve models"),
    ALLOCATE: ("no memory", "memory_gb"),
    KERNEL: ("missing kernels", "brew reinstall"),
    METALLIB: ("missing kernels", "Update macOS"),
    ABORTED: ("aborted", "pensieve logs"),
    KILLED: ("killed", "memory_gb"),
    LOOP: ("crash loop", "doctor --verify"),
}


@pytest.mark.parametrize("line", FACTS)
def test_each_log_line_has_its_cause_and_advice(line: str) -> None:
    name, advice = FACTS[line]
    cause = classify(f"2026-11-26T01:00:00Z INFO the model is loaded\n{line}\nlater words\n")
    assert cause is not None
    assert cause.name == name
    assert advice in f"{cause.advice}\n{cause.fix}"
    assert cause.source


def test_every_cause_has_a_log_line() -> None:
    assert {cause.name for cause in CAUSES} == {name for name, _ in FACTS.values()}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026-11-26T01:00:00Z INFO msg_1 POST /v1/messages: 200 in 0.4 s, 20 in, 8 out",
        "2026-11-26T01:00:00Z INFO the model is loaded (1.6 s); memory holds 8192 tokens",
        "UserWarning: resource_tracker",
    ],
)
def test_an_ordinary_line_has_no_cause(line: str) -> None:
    assert classify(line) is None


def test_the_last_cause_counts() -> None:
    cause = classify(f"{MEMORY}\n{WATCHDOG}")
    assert cause is not None
    assert cause.name == "watchdog"


@pytest.mark.parametrize("last", [IGNORED, KILLED, ABORTED])
def test_a_consequence_is_attributed_to_the_earlier_error(last: str) -> None:
    cause = exception_of(f"{MEMORY}\n{last}\n{last}")
    assert cause is not None
    assert cause.name == "out of memory"
    alone = exception_of(last)
    assert alone is not None
    assert alone.name == FACTS[last][0]
