"""Measures step after step until the time is over. Knows neither HTTP nor a terminal."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from pensieve.bench.answers import Answer, Ask, Served, total_rate
from pensieve.bench.plan import STREAMS, Pace, Step, expected_s, kept_s, longer_limit_s, next_step
from pensieve.bench.prompts import Prompts
from pensieve.bench.result import Figure
from pensieve.errors import ServerUnavailableError

# For the first answers, which can load a sleeping model and compile kernels. They do not count.
WAKE_TIMEOUT_S = 600.0
_WAKE_TOKENS = 8
# Of a prompt whose rate tells what longer ones will take.
_PACE_TOKENS = 200
# Tokens/s of an answer that was too short for a rate.
_UNKNOWN_RATE = 10.0
# A new prompt shares no more than the template with others.
_MAX_COLD_SHARE = 0.1
_MIN_WARM_SHARE = 0.5
# A step that was given up takes longer than it has lasted.
_LATE = 1.5
_GROUPS = ("first token", "prefill", "decode")
DRAFTS = ", drafts"
COPY_TEMPERATURE = 0.0


class Session:
    """Owns the clock, the pace and the samples of one run. show: called with each step's name."""

    def __init__(
        self,
        limit_s: float,
        prompts: Prompts,
        show: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s = limit_s
        self._prompts = prompts
        self._show = show
        self._clock = clock
        self._deadline = clock() + limit_s
        self._pace = Pace(_UNKNOWN_RATE, _UNKNOWN_RATE)
        self._lasted_s: dict[Step, float] = {}
        self._late_s: dict[Step, float] = {}  # after which a step was given up
        self._kept_s = 0.0  # of the time left, not for the present step
        self._samples: dict[tuple[str, str], list[float]] = {}
        self._sent: dict[str, str] = {}  # the latest long prompts, by step
        self.was_shared = False  # others used the server meanwhile
        self.drafted = self.accepted = 0

    @property
    def left_s(self) -> float:
        return self._deadline - self._clock()

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Return first tokens, then prefill, then decode, each in the order of measuring."""
        figures = (Figure(*key, tuple(samples)) for key, samples in self._samples.items())
        return tuple(sorted(figures, key=lambda each: _GROUPS.index(each.name.partition(",")[0])))

    def begin(self, served: Served) -> None:
        """Prepare tokenizer, model and kernels; the time limit begins afterwards.

        Raises `ServerUnavailableError` if the model does not answer in time.
        """
        self._show("warm-up")
        try:
            self._prompts.calibrate(served.count_tokens(self._prompts.sample()))
            self._wake(served, WAKE_TIMEOUT_S)
            self._wake(served, WAKE_TIMEOUT_S, _PACE_TOKENS)
        except TimeoutError as error:
            raise ServerUnavailableError(
                "The model has not answered a short prompt in time.",
                hint="Check the server:\n  pensieve status",
            ) from error
        self._deadline = self._clock() + self.limit_s

    def resume(self, served: Served) -> None:
        """Prepare a restarted server, within the limit."""
        self._show("warm-up")
        if (left_s := self.left_s) > 0:
            with suppress(TimeoutError):
                self._wake(served, left_s)

    def measure(
        self,
        served: Served,
        steps: Iterable[Step],
        *,
        has_drafts: bool = False,
        reserve_s: float = 0.0,
    ) -> None:
        """Repeat the steps until the time is over but for `reserve_s`."""
        counts = {step: int(self.has(step)) for step in steps}
        before = _drafts(served)
        while step := next_step(counts, self._pace, self._lasted_s, self.left_s, reserve_s):
            self._show(step.name)
            began = self._clock()
            self._kept_s = kept_s(step, counts[step], reserve_s)
            try:
                self._take(step, served, DRAFTS if has_drafts else "")
            except TimeoutError:
                self._late_s[step] = self._clock() - began
                break
            counts[step] += 1
            self._lasted_s[step] = self._clock() - began
            self.was_shared |= served.health().in_flight > 0
        drafted, accepted = _drafts(served)
        self.drafted += drafted - before[0]
        self.accepted += accepted - before[1]

    def has(self, step: Step) -> bool:
        """Whether it was measured."""
        return step in self._lasted_s

    def expected_s(self, step: Step) -> float:
        by_pace = expected_s(step, self._pace, self._lasted_s)
        return max(by_pace, _LATE * self._late_s.get(step, 0.0))

    def longer_limit_s(self, missing_s: Sequence[float]) -> int:
        return longer_limit_s(self.limit_s, missing_s)

    def _wake(self, served: Served, timeout_s: float, prompt_tokens: int = 0) -> None:
        ask = Ask(self._prompts.prose(prompt_tokens), _WAKE_TOKENS)
        self._adapt(served.answers([ask], timeout_s)[0])

    def _take(self, step: Step, served: Served, suffix: str) -> None:
        match step.kind:
            case "prompt":
                self._take_prompt(step, served, suffix)
            case "streams":
                self._take_streams(step, served, suffix)
            case "copy":
                self._take_copy(step, served, suffix)
            case "restarted":
                self._take_restarted(step, served)

    def _take_prompt(self, step: Step, served: Served, suffix: str) -> None:
        text = self._prompts.prose(step.prompt_tokens)
        cold = self._ask(served, text)
        self._add(f"decode, {step.name}{suffix}", "tokens/s", cold.decode_rate)
        if not step.is_long:
            self._add(f"first token, {step.name}", "s", cold.first_token_s)
            return
        self._sent[step.name] = text
        if cold.cached_tokens <= _MAX_COLD_SHARE * cold.prompt_tokens:
            self._add(f"first token, {step.name}", "s", cold.first_token_s)
            self._add(f"prefill, {step.name}", "tokens/s", cold.prefill_rate)
        again = self._ask(served, text)
        self._add(f"decode, {step.name}{suffix}", "tokens/s", again.decode_rate)
        if again.cached_tokens >= _MIN_WARM_SHARE * again.prompt_tokens:
            self._add(f"first token, {step.name} again", "s", again.first_token_s)

    def _take_streams(self, step: Step, served: Served, suffix: str) -> None:
        asks = [self._prose(self._prompts.prose(0)) for _ in range(STREAMS)]
        answers = served.answers(asks, self._timeout_s)
        self._add(f"decode, {step.name}{suffix}", "tokens/s", total_rate(answers))

    def _take_copy(self, step: Step, served: Served, suffix: str) -> None:
        tokens = self._pace.answer_tokens
        ask = Ask(self._prompts.copying(tokens), tokens, COPY_TEMPERATURE)
        (answer,) = served.answers([ask], self._timeout_s)
        self._add(f"decode, {step.name}{suffix}", "tokens/s", answer.decode_rate)

    def _take_restarted(self, step: Step, served: Served) -> None:
        text = self._sent[step.name.partition(",")[0]]
        (answer,) = served.answers([Ask(text, 1)], self._timeout_s)
        if answer.cached_tokens >= _MIN_WARM_SHARE * answer.prompt_tokens:
            self._add(f"first token, {step.name}", "s", answer.first_token_s)

    def _ask(self, served: Served, text: str) -> Answer:
        (answer,) = served.answers([self._prose(text)], self._timeout_s)
        self._adapt(answer)
        return answer

    def _prose(self, text: str) -> Ask:
        return Ask(text, self._pace.answer_tokens)

    @property
    def _timeout_s(self) -> float:
        """Return the time that an answer may take; one that is late ends the measuring."""
        if (left_s := self.left_s - self._kept_s) <= 0:
            raise TimeoutError
        return left_s

    def _adapt(self, answer: Answer) -> None:
        decode = answer.decode_rate or self._pace.decode
        if answer.processed_tokens < self._pace.prompt_tokens:
            self._pace = Pace(self._pace.prefill, decode, self._pace.prompt_tokens)
        else:
            self._pace = Pace(max(answer.prefill_rate, 0.01), decode, answer.processed_tokens)

    def _add(self, name: str, unit: str, value: float | None) -> None:
        if value is not None and value > 0:
            self._samples.setdefault((name, unit), []).append(value)


def _drafts(served: Served) -> tuple[int, int]:
    """Return the tokens drafted and accepted so far."""
    engine = served.health().engine
    return (engine.drafts.total.drafted, engine.drafts.total.accepted) if engine else (0, 0)
