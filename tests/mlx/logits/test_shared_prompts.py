"""Tests generations of one prompt that are submitted together, on tiny models."""

import pytest

from pensieve.engine.generation import Sampling
from tests.mlx.speculation.test_decoding import Bench, Habit, generation, lookups
from tests.support import tiny_architectures

CHOICES = 3
PROMPTS = {
    "short": tuple((at * at + 3 * at) % 211 for at in range(40)),
    "long": tuple((at * at * 5 + 3 * at) % 211 for at in range(500)),
}


class Fed(Habit):
    """Counts the tokens that it is fed."""

    fed = 0

    def __call__(self, tokens, cache):
        self.fed += tokens.size
        return super().__call__(tokens, cache)


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "qwen3_5"])
def model(request: pytest.FixtureRequest) -> Fed:
    return Fed(tiny_architectures.build(request.param), strength=1)


def of_choice(index: int) -> Sampling:
    return Sampling(temperature=2.0, seed=7 + index)


@pytest.mark.parametrize("drafts", ["off", "on"])
@pytest.mark.parametrize("length", PROMPTS)
def test_choices_equal_lone_answers_and_process_the_prompt_once(
    model: Fed, length: str, drafts: str
) -> None:
    prompt, drafter_of = PROMPTS[length], lookups(model) if drafts == "on" else None
    expected = []
    for index in range(CHOICES):
        lone = Bench(model, drafter_of=drafter_of)
        lone.submit(0, generation(prompt, of_choice(index), max_tokens=8))
        expected.append(lone.run().tokens(0))
    bench = Bench(model, drafter_of=drafter_of)
    model.fed = 0
    for index in range(CHOICES):
        call = generation(prompt, of_choice(index), max_tokens=8, shares_prompt=True)
        bench.submit(index, call)
    bench.run()
    assert [bench.tokens(index) for index in range(CHOICES)] == expected
    assert len({tuple(answer) for answer in expected}) == CHOICES
    if drafts == "off":
        # Each later one feeds the last token of the prompt itself.
        assert model.fed <= len(prompt) + CHOICES - 1 + CHOICES * 8


def test_other_prompts_are_not_waited_for(model: Fed) -> None:
    bench = Bench(model)
    for index, prompt in enumerate(PROMPTS.values()):
        bench.submit(index, generation(prompt, max_tokens=2, shares_prompt=True))
    bench.run()
    assert all(len(bench.tokens(index)) == 2 for index in range(2))
