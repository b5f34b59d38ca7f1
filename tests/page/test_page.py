"""The page in Chromium, against real servers with scripted engines."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import anyio
import httpx

from pensieve.engine.generation import (
    EngineHealth,
    EngineStats,
    Finished,
    Prefilled,
    SpeculationState,
    Started,
    Token,
)
from pensieve.server.app import AppParts
from tests.page.browser import Browser
from tests.page.conftest import Place
from tests.server.serving import CALL, KEY
from tests.support.canaries import BODIES, CANARY, HEADERS, SCRIPTS, body_of
from tests.support.fakes import ScriptedEngine, Step, says

STATS = EngineStats(
    8,
    "why",
    memory_limit_bytes=27_200_000_000,
    weights_bytes=17_200_000_000,
    kv_budget_bytes=7_600_000_000,
    kv_used_bytes=1_200_000_000,
    prefix_memory_bytes=3_100_000_000,
    prefix_disk_bytes=11_000_000_000,
    prefix_disk_cap_bytes=40_000_000_000,
    tokens_per_second=61.4,
)
READY = EngineHealth(
    "ready", worker_pid=1, stats=STATS, speculation=SpeculationState("pays", 16, 2.4)
)
MARKUP = "<img src=x onerror=window.injected=1>"


def ask(place: Place, text: str = "hello", **options: object) -> httpx.Response:
    call = CALL | {"messages": [{"role": "user", "content": text}]} | options
    return httpx.post(f"{place.url}v1/messages", json=call, headers={"x-api-key": KEY})


@contextmanager
def streaming(place: Place, text: str) -> Generator[None]:
    """Have a request in progress within the block; leaving it waits for its end."""
    thread = Thread(target=ask, args=(place, text), kwargs={"stream": True})
    thread.start()
    yield
    thread.join()


def gated_script() -> tuple[list[Step], list[anyio.Event]]:
    """Return a script, and what opens its prompt's second half, its answer and its end."""
    gates = [anyio.Event() for _ in range(2)]
    script = [Started(100), Prefilled(1500), gates[0], Token(72), Token(105), gates[1]]
    return [*script, Finished("stop_token", 3)], gates


def polls(browser: Browser) -> int:
    return sum(url.endswith("/activity") for url in browser.do("observed")["requests"])


def test_page_loads_from_its_own_origin_without_an_error(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine([says("ok")], READY)):
        ask(place)
        place.open_unlocked(browser)
        browser.wait_for("#recent", "200")
        assert browser.evaluate("document.querySelector('#engines-panel').hidden")
        observed = browser.do("observed")
    assert observed["errors"] == []
    assert all(url.startswith((place.url, "data:")) for url in observed["requests"])


def test_wrong_key_is_asked_for_again_with_the_reason(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine([says("ok")], READY)):
        browser.do("open", url=place.url)
        browser.do("type", text="wröng")
        browser.do("press", key="Enter")
        browser.wait_for("#key-error", "invalid x-api-key")
        browser.do("type", text=KEY)
        browser.do("press", key="Enter")
        browser.wait_for("#state", "ready")
    # The key stays in the tab.
    assert browser.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0


def test_running_stream_is_shown_by_the_next_poll(browser: Browser, place: Place) -> None:
    script, (answer, end) = gated_script()
    with place.serve(ScriptedEngine([script], READY)) as portal:
        place.open_unlocked(browser)
        before = polls(browser)
        with streaming(place, "x" * 3000):
            browser.wait_for("#requests", "1,500 of 3,0")
            assert polls(browser) - before <= 2
            assert browser.evaluate(PROGRESS) == ["100", "1500"]
            portal.call(answer.set)
            browser.wait_for("#requests", "2 tokens of at most 50")
            portal.call(end.set)
        browser.wait_for("#recent tbody", "200")
        browser.wait_for("#requests-empty", "Nothing runs")
        assert " s at " in browser.text("#first .readout")
        assert browser.text("#cache .readout").startswith("3 % of 3,0")
        label = browser.evaluate("document.querySelector('#first svg').ariaLabel")
        assert label.startswith("Seconds to the first token in the last hour: last ")


PROGRESS = """(() => {
  const bar = document.querySelector("#requests [role=progressbar]");
  const share = parseFloat(bar.querySelector(".cached").style.width) / 100;
  return [Math.round(share * bar.ariaValueMax), bar.ariaValueNow].map(String);
})()"""


def test_nothing_moves_when_a_request_begins(browser: Browser, place: Place) -> None:
    script, (answer, end) = gated_script()
    with place.serve(ScriptedEngine([script], READY)) as portal:
        place.open_unlocked(browser, width=1440)
        browser.wait("!document.querySelector('#recent-empty').hidden")
        before = browser.evaluate(PLACES)
        with streaming(place, "x" * 3000):
            browser.wait_for("#requests", "1,500 of")
            during = browser.evaluate(PLACES)
            portal.call(answer.set)
            portal.call(end.set)
    assert during == before


PLACES = """[...document.querySelectorAll("#board > *")]
  .map((each) => [each.offsetLeft, each.offsetTop, each.offsetWidth])"""


def test_page_survives_a_restart_of_the_server(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine([says("ok")], READY)):
        place.open_unlocked(browser)
        browser.evaluate("window.isSame = true")
    browser.wait_for("#notice", "No answer from pensieve")
    with place.serve(ScriptedEngine([says("ok")], READY)):
        browser.wait_for("#state", "ready")
    assert browser.evaluate("window.isSame")


def test_state_of_the_worker_is_said(browser: Browser, place: Place) -> None:
    engine = ScriptedEngine([says("ok")], READY)
    with place.serve(engine):
        place.open_unlocked(browser)
        for health, notice in (
            (EngineHealth("asleep"), "The model sleeps"),
            (EngineHealth("loading", "Reading weights."), "Reading weights."),
            (EngineHealth("failed", "Out of memory."), "Out of memory."),
        ):
            engine.health = health
            browser.wait_for("#state", health.state)
            browser.wait_for("#notice", notice)
        assert browser.do("audit") == []


ENGINE_ROWS = """[...document.querySelectorAll("#engines tr")].map(
  (row) => [...row.cells].map((cell) => cell.textContent))"""
NONE = "\N{EN DASH}"


def test_several_engines_have_a_table(browser: Browser, place: Place) -> None:
    busy = replace(READY, in_flight=3, stats=replace(STATS, queued=1))
    lost = EngineHealth("loading", f"lost {MARKUP}", restarts_by_cause={"host": 2})
    health = replace(READY, replicas={"worker-1": busy, "studio.local": lost})
    with place.serve(ScriptedEngine([says("ok")], health)):
        place.open_unlocked(browser)
        browser.wait_for("#engines tr:last-child", "studio.local")
        rows = browser.evaluate(ENGINE_ROWS)
        assert rows[0] == ["worker-1", "ready", "3", "1", "61.4", NONE, "0"]
        lost_row = ["studio.local", f"loading: lost {MARKUP}", "0", NONE, NONE, NONE, "2"]
        assert rows[1] == lost_row
        assert browser.evaluate("document.querySelector('#engines img') === null")


def test_script_that_the_document_is_made_to_have_does_not_run(
    browser: Browser, place: Place
) -> None:
    injected = f"<script>window.injected = 1</script>{MARKUP}"
    with place.serve(ScriptedEngine([says("ok")], READY)):
        browser.do("open", url=place.url, injected=injected)
        errors = browser.do("observed")["errors"]
        assert browser.evaluate("[document.images.length, window.injected ?? null]") == [1, None]
    refused = [error for error in errors if "Content Security Policy" in error]
    assert any("script-src" in error for error in refused)
    assert any("img-src" in error for error in refused)


def test_script_cannot_make_text_html(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine([says("ok")], READY)):
        browser.do("open", url=place.url)
        code = f"try {{ document.body.innerHTML = {json.dumps(MARKUP)} }} catch (e) {{ e.name }}"
        assert browser.evaluate(code) == "TypeError"


def test_markup_from_the_server_stays_text(browser: Browser, place: Place) -> None:
    log = place.home / "server.log"
    as_json = '{"time": "2026-12-01T04:00:00Z", "level": "INFO", "message": "ready", "total_s": 1}'
    log.write_text(f"2026-12-01T03:00:00Z ERROR {MARKUP}\n{as_json}\n")
    finding = {"severity": "warning", "title": "t", "explanation": MARKUP, "fix": MARKUP}
    parts = AppParts(find=lambda: [finding], log=log)
    with place.serve(ScriptedEngine([says(MARKUP)], READY), parts, show_content=True):
        ask(place, MARKUP)
        place.open_unlocked(browser)
        browser.wait_for("#log", MARKUP)
        browser.evaluate("document.querySelector('#recent details').open = true")
        assert "show_content is on" in browser.text("#about")
        browser.wait_for("#log", "2026-12-01T04:00:00Z INFO ready")
        texts = [browser.text(panel) for panel in ("#log", "#findings", "#recent")]
    assert [text.count(MARKUP) for text in texts] == [1, 2, 2]
    assert browser.evaluate("[document.images.length, window.injected ?? null]") == [0, None]


def test_page_is_accessible_in_light_and_dark_and_fits_a_narrow_window(
    browser: Browser, place: Place
) -> None:
    script, gates = gated_script()
    health = replace(READY, replicas={"worker-1": READY, "worker-2": READY})
    long = "/Users/someone/models/" + "a-model-with-a-long-name/" * 5
    finding = {"severity": "error", "title": "t", "explanation": long, "fix": f"rm -r {long}"}
    parts = AppParts(find=lambda: [finding])
    with place.serve(ScriptedEngine([says("ok"), script], health), parts) as portal:
        ask(place)
        browser.do("open", url=place.url, width=320)
        assert browser.do("audit") == []
        browser.do("type", text=KEY)
        browser.do("press", key="Enter")
        with streaming(place, "x" * 3000):
            browser.wait_for("#requests", "1,500 of")
            browser.wait_for("#findings", long)
            width = browser.evaluate("document.documentElement.scrollWidth")
            browser.evaluate("document.querySelectorAll('details').forEach((e) => e.open = true)")
            light = browser.do("audit")
            browser.do("scheme", scheme="dark")
            dark = browser.do("audit")
            for gate in gates:
                portal.call(gate.set)
    assert (light, dark, width) == ([], [], 320)


def test_long_reason_of_a_failed_engine_fits_a_narrow_window(
    browser: Browser, place: Place
) -> None:
    path = "/Users" + "/someone" * 12  # no hyphen at which a line could end
    failed = EngineHealth("failed", f"No such file: {path}")
    health = replace(failed, replicas={"worker-1": failed, "worker-2": failed})
    with place.serve(ScriptedEngine([], health)):
        browser.do("open", url=place.url, width=320)
        browser.do("type", text=KEY)
        browser.do("press", key="Enter")
        browser.wait_for("#notice", failed.detail)
        # The plots take their width a frame later.
        browser.wait("document.documentElement.scrollWidth === 320")


def test_hidden_tab_does_not_poll(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine([says("ok")], READY)):
        place.open_unlocked(browser, isPaused=True)
        browser.evaluate(VISIBILITY.replace("IS_HIDDEN", "true"))
        browser.do("pass", seconds=2)
        before = polls(browser)
        browser.do("pass", seconds=30)
        assert polls(browser) == before
        browser.evaluate(VISIBILITY.replace("IS_HIDDEN", "false"))
        assert polls(browser) > before


VISIBILITY = """(() => {
  Object.defineProperty(document, "hidden", { value: IS_HIDDEN, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
})()"""


def test_nothing_of_requests_or_answers_is_on_the_page(browser: Browser, place: Place) -> None:
    with place.serve(ScriptedEngine(SCRIPTS * len(BODIES) * 2, READY)):
        for number, path in enumerate(list(BODIES) * 2):
            httpx.post(f"{place.url}{path[1:]}", json=body_of(path, number), headers=HEADERS)
        place.open_unlocked(browser)
        browser.wait(f"document.querySelectorAll('#recent tbody tr').length >= {len(BODIES)}")
        shown = browser.evaluate("document.documentElement.outerHTML")
    assert CANARY not in shown
