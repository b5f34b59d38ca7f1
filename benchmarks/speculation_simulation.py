"""What drafts would save: true answers walked through the real index and policy.

usage: python -m benchmarks.speculation_simulation [--home FOLDER]

No model runs. Answers are copies that a capable model would write of our own modules, in the
embedded model's tokens, so figures are an upper bound for verbatim copying. A step takes what a
curve below says for its rows, relative to one row, plus 4 % where drafts end the overlap with the
host. `--home` keeps the embedded model for the next run.
"""

# pyright: basic

import argparse
import difflib
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.dialect import JSON_CALL, ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.engine.speculation.acceptance import accept
from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.speculation.draft_source import FAR_DRAFTS, Draft, combine
from pensieve.engine.speculation.lookup_index import LookupIndex
from pensieve.engine.speculation.policy import Row, SpeculationPolicy
from pensieve.engine.speculation.row_ledger import RowLedger
from pensieve.models.load import open_model
from pensieve.models.served_model import ServedModel
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.shadow import ShadowTokens
from tests.support.embedded_model import embedded_model_folder

ROOT = Path(__file__).parent.parent
FILE = "pensieve/engine/scheduling/prefix_cache.py"
TESTS = "tests/engine/scheduling/test_prefix_cache.py"
RULES = "You are a coding agent. You call tools as JSON. The folder is /home/me/pensieve.\n"
OPENING = "Look at the code first."
OLD_NAME, NEW_NAME = "acquire", "take_entry"
# Time of a step, by rows, relative to one row. Apple, 4-bit weights: mlx pull requests 3852
# (M4 Pro), 3863 (M3 Max), 3791 (M5 Max); M1 and M2 by MLX's source: rows one by one up to 5, then
# one tile. CPU and H200 as measured for the embedded and a Phi-3-mini-shaped model (2026-11-30).
CURVES = {
    "M1/M2": {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0, 6: 5.0, 32: 5.0},
    "M3/M4": {1: 1.0, 2: 1.0, 3: 1.13, 4: 1.35, 5: 1.75, 6: 2.04, 8: 2.65, 10: 4.2, 32: 4.25},
    "M5 Max": {1: 1.0, 2: 1.05, 3: 1.12, 4: 1.3, 5: 1.48, 8: 2.25, 12: 3.2, 16: 3.9, 32: 3.9},
    "CPU f32": {1: 1.0, 2: 1.24, 3: 1.37, 4: 1.63, 6: 1.89, 8: 2.11, 16: 2.7, 32: 4.8},
    "H200": {1: 1.0, 2: 1.52, 3: 2.03, 4: 2.67, 6: 3.63, 8: 2.2, 16: 2.33, 32: 3.27},
    "CPU 4-bit": {1: 1.0, 2: 1.87, 3: 2.75, 4: 3.66, 6: 5.46, 8: 7.12, 16: 14.1, 32: 28.0},
}
# The curve that the policy is given, and the true one.
WRONG_CURVES = (
    ("M3/M4", "H200"),
    ("M3/M4", "CPU 4-bit"),
    ("M5 Max", "CPU f32"),
    ("CPU f32", "M3/M4"),
)
LOST_OVERLAP = 0.04
PLAIN_STEP_S = 0.02
CONTEXT = 2000
# Several answers at once, cut to this many tokens.
BATCHES = ((0, 6), (0, 2, 3, 6), (6, 5, 6, 3), (0, 1, 2, 4))
BATCH_CURVES = ("M1/M2", "M3/M4", "M5 Max")
BATCH_TOKENS = 450
LONGEST = (4, 8, 31)


Body = dict[str, object]  # of a request


@dataclass(frozen=True)
class Case:
    name: str
    prompt: Sequence[int]
    shadows: Sequence[Sequence[int]]
    answer: Sequence[int]

    @property
    def texts(self) -> list[Sequence[int]]:
        return [self.prompt, self.answer, *self.shadows]

    def index(self, vocabulary: int, *, has_shadows: bool) -> LookupIndex:
        index = LookupIndex(vocabulary, self.shadows if has_shadows else ())
        index.extend(self.prompt)
        return index


# The texts.


def source(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def numbered(text: str) -> str:
    """As Claude Code's Read shows a file."""
    return "\n".join(f"{at:6}→{line}" for at, line in enumerate(text.splitlines(), 1))


def call(name: str, **arguments: object) -> str:
    return format_calls(JSON_CALL, [ToolCall(name, arguments)])


def request(task: str, *steps: tuple[str, dict[str, object], str]) -> Body:
    """Calls (name, arguments, result), then a task: requests after the same calls share them."""
    messages: list[dict[str, object]] = [{"role": "user", "content": OPENING}]
    for at, (name, arguments, result) in enumerate(steps):
        use = {"type": "tool_use", "id": f"t{at}", "name": name, "input": arguments}
        answer = {"type": "tool_result", "tool_use_id": f"t{at}", "content": result}
        messages.append({"role": "assistant", "content": [use]})
        messages.append({"role": "user", "content": [answer]})
    messages.append({"role": "user", "content": task})
    return {"model": "m", "system": RULES, "messages": messages}


def read_step(path: str) -> tuple[str, dict[str, object], str]:
    return "Read", {"file_path": f"/home/me/pensieve/{path}"}, numbered(source(path))


def edits(old: str, new: str) -> Iterator[str]:
    """Edit calls of the first two changes, each with two lines around it."""
    before, after = old.splitlines(), new.splitlines()
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    for group in list(matcher.get_grouped_opcodes(6))[:2]:
        _, a_start, _, b_start, _ = group[0]
        _, _, a_end, _, b_end = group[-1]
        yield call(
            "Edit",
            file_path=f"/home/me/pensieve/{FILE}",
            old_string="\n".join(before[a_start:a_end]),
            new_string="\n".join(after[b_start:b_end]),
        )


def json_calls() -> tuple[Body, str]:
    paths = [
        path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("pensieve/engine/*/*.py"))
    ]
    listing = "\n".join(f"/home/me/pensieve/{path}" for path in paths[:24])
    root = "/home/me/pensieve"
    log = f"cd {root} && git log --oneline"
    search: dict[str, object] = {
        "pattern": "PrefixCache",
        "path": root,
        "output_mode": "content",
    }
    asked = request(
        "Look through the engine for uses of the prefix cache.",
        ("Glob", {"pattern": "pensieve/engine/**/*.py"}, listing),
        ("Grep", search, "5 matches"),
        ("Bash", {"command": f"{log} | head -3", "description": "Show commits"}, ""),
    )
    reads = [call("Read", file_path=f"{root}/{path}") for path in paths[3:18:4]]
    todos = [
        {"content": "Read the scheduler", "status": "in_progress"},
        {"content": "Read the batch", "status": "pending"},
    ]
    engine_log = f"{log} -- pensieve/engine | head -9"
    others = [
        call("Grep", pattern="TieredPrefixCache", path=f"{root}/pensieve", output_mode="content"),
        call("Bash", command=engine_log, description="Show commits of the engine"),
        call("Grep", pattern="def insert", path=root, output_mode="files_with_matches"),
        call("TodoWrite", todos=todos),
        call("Glob", pattern="tests/engine/**/test_*.py"),
    ]
    return asked, "\n".join([*reads, *others])


def texts() -> Iterator[tuple[str, Body, str]]:
    """Yield names, requests, and the answers that a capable model would write to them."""
    old = source(FILE)
    new = old.replace(OLD_NAME, NEW_NAME)
    asked = request(f"Rename {OLD_NAME} to {NEW_NAME} in {FILE}.", read_step(FILE))
    yield "rewrite, code block", asked, f"Here is the file:\n\n```python\n{new}```\n"
    yield (
        "rewrite, Write call",
        asked,
        call("Write", file_path=f"/home/me/pensieve/{FILE}", content=new),
    )
    yield "2 Edit calls", asked, "\n".join(edits(old, new))
    yield "9 JSON calls", *json_calls()
    diff = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"a/{FILE}", f"b/{FILE}", lineterm=""
    )
    yield "unified diff", asked, "```diff\n" + "\n".join(diff) + "\n```\n"
    tests = source(TESTS).partition("\n\n\n")[2][:2400]
    yield "unit tests", request(f"Write tests for {FILE}.", read_step(FILE)), tests
    prose = source("docs/architecture.md").partition("## The life of")[0][:3000]
    yield "prose", request("Describe how the project is built.", read_step(FILE)), prose


def cases(model: ServedModel, written: Iterable[tuple[str, Body, str]]) -> Iterator[Case]:
    """Return the texts in the tokens of a model that calls tools as JSON."""
    renderer = PromptRenderer(model.tokenizer, model.dialect)
    shadow_tokens = ShadowTokens(model.tokenizer, JSON_CALL)
    for name, body, answer in written:
        asked = decode(Conversation, body)
        prompt = renderer.render(asked).tokens
        yield Case(name, prompt, shadow_tokens.of(asked), model.tokenizer.encode(answer))


# The walks.


def tokens_a_step(case: Case, index: LookupIndex, longest: int) -> float:
    """Every draft is verified, whatever it costs."""
    at = steps = 0
    while at < len(case.answer):
        draft = index.propose((), longest).tokens
        taken = accept(draft, case.answer[at : at + len(draft) + 1], (), len(case.answer) - at)
        index.extend(taken.tokens)
        at += len(taken.tokens)
        steps += 1
    return len(case.answer) / steps


class Answer:
    """One sequence. `drawn` tokens exist; of the last one the host knows only if `is_known`."""

    def __init__(self, case: Case, index: LookupIndex, ledger: RowLedger) -> None:
        self.tokens, self.index, self.ledger = case.answer, index, ledger
        self.drawn, self.is_known, self.guess = 1, True, ()
        index.extend(self.tokens[:1])

    @property
    def is_finished(self) -> bool:
        return self.drawn >= len(self.tokens)

    def propose(self) -> Row:
        """A draft made before the last token is read guesses it first."""
        bridge = 0 if self.is_known else 1
        proposed = combine([self.index], FAR_DRAFTS + bridge)
        self.guess = proposed.tokens[:bridge]
        draft = proposed.without_first(bridge)
        return Row(self.ledger, draft.first(len(self.tokens) - self.drawn - 1))

    @property
    def is_guess_right(self) -> bool:
        return self.is_known or self.guess == tuple(self.tokens[self.drawn - 1 : self.drawn])

    def verify(self, draft: Draft) -> Row:
        coming = self.tokens[self.drawn : self.drawn + len(draft) + 1]
        kept = accept(draft.tokens, coming, (), len(draft) + 1).drafts
        return Row(self.ledger, draft, kept if self.is_guess_right else 0)

    def advance(self, kept: int, *, is_read: bool) -> None:
        """Add the step's tokens. is_read: the host waits for them, not only for those before."""
        start = self.drawn if self.is_known else self.drawn - 1
        self.drawn += kept + 1
        self.index.extend(self.tokens[start : self.drawn if is_read else self.drawn - 1])
        self.is_known = is_read


def step_costs(curve: dict[int, float]) -> ContextCosts:
    return ContextCosts(CONTEXT, {rows: PLAIN_STEP_S * time for rows, time in curve.items()})


class Batch:
    """Answers of one batch, one step ahead of the host."""

    def __init__(self, curve: dict[int, float], true_curve: dict[int, float] | None = None) -> None:
        """true_curve: what steps really take, where `curve` is wrong."""
        self.policy = SpeculationPolicy(CostCurve((step_costs(curve),)))
        self.costs = step_costs(true_curve or curve)
        self.steps = 0.0

    def run(self, answers: Sequence[Answer]) -> list[float]:
        """Return after how many steps of one row each answer is finished."""
        finished = [0.0] * len(answers)
        while live := [answer for answer in answers if not answer.is_finished]:
            self.step(live)
            for at, answer in enumerate(answers):
                if answer in live and answer.is_finished:
                    finished[at] = self.steps
        return finished

    def step(self, answers: Sequence[Answer]) -> None:
        proposed = [answer.propose() for answer in answers]
        plan = self.policy.plan(proposed, CONTEXT)
        fed = [row.draft.first(width) for row, width in zip(proposed, plan.drafts, strict=True)]
        rows = [answer.verify(draft) for answer, draft in zip(answers, fed, strict=True)]
        is_read = any(
            len(row.draft) and answer.is_guess_right
            for answer, row in zip(answers, rows, strict=True)
        )
        for answer, row in zip(answers, rows, strict=True):
            answer.advance(row.accepted, is_read=is_read)
        taken = self.time(len(answers) + sum(map(len, fed)), has_drafts=any(map(len, fed)))
        self.policy.settle(plan, rows, taken * PLAIN_STEP_S)
        self.steps += taken

    def time(self, rows: int, *, has_drafts: bool) -> float:
        bounds = self.costs.bounds(rows)
        assert bounds is not None
        return bounds[1] / PLAIN_STEP_S + (LOST_OVERLAP if has_drafts else 0.0)


# The tables.


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lookup_row(case: Case, vocabulary: int) -> list[str]:
    cells = [f"{case.name} ({len(case.prompt)} → {len(case.answer)})"]
    for has_shadows in (False, True):
        found = (
            tokens_a_step(case, case.index(vocabulary, has_shadows=has_shadows), longest)
            for longest in LONGEST
        )
        cells.append(" / ".join(f"{figure:.1f}" for figure in found))
    return cells


def speed_row(case: Case, vocabulary: int) -> list[str]:
    cells = [case.name]
    for curve in CURVES.values():
        found = (
            speed(case, vocabulary, Batch(curve), has_shadows=has_shadows)
            for has_shadows in (False, True)
        )
        cells.append(" / ".join(f"{figure:.2f}" for figure in found))
    return cells


def wrong_curve_row(case: Case, vocabulary: int) -> list[str]:
    found = (
        speed(case, vocabulary, Batch(CURVES[given], CURVES[true]), has_shadows=True)
        for given, true in WRONG_CURVES
    )
    return [case.name, *(f"{figure:.2f}" for figure in found)]


def speed(case: Case, vocabulary: int, batch: Batch, *, has_shadows: bool) -> float:
    """Return how many times as fast as without drafts an answer is."""
    (steps,) = finished([case], vocabulary, batch, has_shadows=has_shadows)
    return (len(case.answer) - 1) / steps


def finished(
    cases: Sequence[Case], vocabulary: int, batch: Batch, *, has_shadows: bool
) -> list[float]:
    return batch.run(
        [
            Answer(case, case.index(vocabulary, has_shadows=has_shadows), RowLedger())
            for case in cases
        ]
    )


def batch_row(cases: Sequence[Case], vocabulary: int) -> list[str]:
    """When each of several answers is finished, without and with drafts."""
    cut = [replace(case, answer=case.answer[:BATCH_TOKENS]) for case in cases]
    cells = [", ".join(case.name for case in cases)]
    for curve in BATCH_CURVES:
        rows = CURVES[curve]
        plain = Batch(rows).time(len(cut), has_drafts=False)
        ends = finished(cut, vocabulary, Batch(rows), has_shadows=True)
        longest = max(len(case.answer) for case in cut) * plain
        cells.append(f"{longest:.0f} → {', '.join(f'{end:.0f}' for end in ends)}")
    return cells


def cpu_seconds(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(5):
        began_at = time.process_time()
        work()
        times.append(time.process_time() - began_at)
    return min(times)


def follow(case: Case, vocabulary: int, *, has_drafts: bool) -> None:
    index = LookupIndex(vocabulary)
    for token in case.answer:
        if has_drafts:
            index.propose((), FAR_DRAFTS)
        index.extend((token,))


def index_costs(case: Case, vocabulary: int) -> str:
    tokens = (list(case.prompt) * (1 + 20_000 // len(case.prompt)))[:20_000]
    tracemalloc.start()
    index = LookupIndex(vocabulary)
    index.extend(case.prompt)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    bulk_s = cpu_seconds(lambda: LookupIndex(vocabulary).extend(tokens))
    add_s = cpu_seconds(lambda: follow(case, vocabulary, has_drafts=False))
    draft_s = cpu_seconds(lambda: follow(case, vocabulary, has_drafts=True)) - add_s
    answered = len(case.answer)
    return (
        f"index of {case.name}: 20 000 tokens {bulk_s * 1e3:.1f} ms, a token "
        f"{add_s / answered * 1e6:.2f} us, a draft {draft_s / answered * 1e6:.1f} us, "
        f"{size / len(case.prompt):.0f} B a token"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path)
    home = parser.parse_args().home or Path(tempfile.mkdtemp())
    model = open_model(embedded_model_folder(home))
    found = list(cases(model, texts()))
    vocabulary = 1 + max(max(map(max, case.texts)) for case in found)
    print(f"Tokens a step, drafts of at most {LONGEST}, everything verified\n")
    head = ["answer (prompt → answer tokens)", "lookup", "+ shadow"]
    print(table(head, [lookup_row(case, vocabulary) for case in found]))
    print("\nTimes as fast as plain, with the policy: lookup / + shadow\n")
    print(table(["answer", *CURVES], [speed_row(case, vocabulary) for case in found]))
    print("\nThe same, + shadow, while the policy starts with a wrong curve: given / true\n")
    pairs = [" / ".join(pair) for pair in WRONG_CURVES]
    print(table(["answer", *pairs], [wrong_curve_row(case, vocabulary) for case in found]))
    print(
        f"\nWhen each of several answers is finished, in steps of one row ({BATCH_TOKENS} tokens)\n"
    )
    rows = [batch_row([found[at] for at in which], vocabulary) for which in BATCHES]
    print(table(["answers, + shadow", *BATCH_CURVES], rows))
    print()
    for case in (found[0], found[3], found[-1]):
        print(index_costs(case, vocabulary))
    for name, curve in CURVES.items():
        text = SpeculationPolicy(CostCurve((ContextCosts(0, curve),))).assessment.text
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
