"""Frames survive encoding, any split of the stream, and decoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine import protocol
from pensieve.engine.generation import (
    PRIORITIES,
    Admitted,
    DraftCounts,
    Drafted,
    EngineStats,
    Finished,
    Generation,
    Grammar,
    Logprobs,
    Prefilled,
    ResourceLimits,
    Sampling,
    SourceCounts,
    SpeculationState,
    Started,
    Token,
)
from pensieve.engine.pictures import PromptPicture
from pensieve.engine.protocol import (
    Begun,
    Cancel,
    Failed,
    Frame,
    FrameBuffer,
    Load,
    Loaded,
    LoadFailed,
    Pixels,
    Preloaded,
    Step,
    Submit,
    Unload,
    Wanted,
)

counts = st.integers(0, 2**31)
tokens = st.integers(-(2**31), 2**31 - 1)  # those of pictures are negative
sampling = st.builds(
    Sampling,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 100),
    seed=st.none() | counts,
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.01, 2),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    logit_bias=st.lists(st.tuples(counts, st.floats(-100, 100)), max_size=3).map(tuple),
)
generations = st.builds(
    Generation,
    prompt_tokens=st.lists(tokens, min_size=1).map(tuple),
    max_tokens=st.integers(1, 10**6),
    stop_tokens=st.frozensets(counts),
    sampling=sampling,
    boundaries=st.lists(counts).map(tuple),
    pinned_tokens=counts,
    priority=st.sampled_from(PRIORITIES),
    client=st.text(max_size=32),
    top_logprobs=st.none() | st.integers(0, 20),
    shares_prompt=st.booleans(),
    runs_alone=st.booleans(),
)
constrained = st.builds(
    Generation,
    prompt_tokens=st.lists(tokens, min_size=3).map(tuple),
    max_tokens=st.integers(1, 10**6),
    stop_tokens=st.frozensets(counts, min_size=1),
    grammar=st.builds(Grammar, st.text()),
    answered_tokens=st.integers(0, 2),
    hints=st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=3).map(tuple),
)
seen = st.builds(
    Generation,
    prompt_tokens=st.lists(tokens, min_size=20).map(tuple),
    max_tokens=st.integers(1, 10**6),
    pictures=st.builds(
        lambda one, after: (one, PromptPicture("b", one.tokens.stop + after, 1, 3)),
        st.builds(
            PromptPicture, st.text(), st.integers(0, 9), st.integers(1, 2), st.integers(1, 2)
        ),
        st.integers(0, 2),
    ),
)
source_counts = st.builds(SourceCounts, counts, counts)
drafts = st.builds(DraftCounts, source_counts, source_counts, source_counts, source_counts)
reasons = st.sampled_from(["pays", "caches"])
states = st.builds(SpeculationState, reasons, counts, st.floats(1, 9), st.booleans())
numbers = st.floats(-9999, 0)
logprobs = st.builds(Logprobs, numbers, st.lists(st.tuples(counts, numbers)).map(tuple))
events = st.one_of(
    st.just(Admitted()),
    st.builds(Started, counts),
    st.builds(Prefilled, counts),
    st.builds(Token, counts, st.none() | logprobs),
    st.builds(Drafted, drafts),
    st.builds(Finished, st.sampled_from(["stop_token", "length"]), counts),
    st.builds(Failed, st.text(), st.sampled_from(["busy", "grammar", "engine"])),
)
frames = st.one_of(
    st.builds(Load, st.text(), st.sampled_from(["gpu", "cpu"]), limits=st.builds(ResourceLimits)),
    st.builds(EngineStats, drafts=drafts),
    st.builds(Submit, counts, generations | constrained | seen),
    st.builds(Cancel, counts),
    st.builds(Pixels, st.text(), st.binary(), st.booleans()),
    st.builds(Wanted, counts, st.text()),
    st.just(Unload()),
    st.builds(Loaded, st.floats(0, 1e6), counts, states, st.booleans()),
    st.builds(LoadFailed, st.text()),
    st.builds(Begun, st.text(), st.floats(0, 1e6)),
    st.builds(Preloaded, counts, counts, st.floats(0, 1e6)),
    st.builds(Step, st.lists(st.tuples(counts, events)).map(tuple)),
)


@given(st.lists(frames), st.randoms(use_true_random=False))
def test_frames_are_decoded_however_the_stream_is_split(sent: list[Frame], random) -> None:
    wire = b"".join(protocol.encode(frame) for frame in sent)
    buffer = FrameBuffer()
    received: list[Frame] = []
    while wire:
        size = random.randint(1, len(wire))
        received += buffer.feed(wire[:size])
        wire = wire[size:]
    assert received == sent


def test_frame_above_the_maximum_length_is_refused() -> None:
    with pytest.raises(ValueError, match="4294967295"):
        FrameBuffer().feed(b"\xff\xff\xff\xff")


def test_step_of_eight_tokens_is_a_small_frame() -> None:
    step = Step(tuple((key, Token(31999)) for key in range(8)))
    assert len(protocol.encode(step)) < 250


def test_token_of_a_prompt_or_a_hint_takes_less_than_six_bytes() -> None:
    tokens = tuple(range(100_000, 130_000))
    submit = Submit(1, Generation(tokens, 1, hints=(tokens, tokens)))
    assert len(protocol.encode(submit)) < 6 * 3 * len(tokens)


@pytest.mark.parametrize(
    ("packed", "fault"), [("AAA=", "multiple of item size"), ("AAA!", "base64"), ("é", "ASCII")]
)
def test_damaged_tokens_are_refused(packed: str, fault: str) -> None:
    body = protocol.encode(Submit(1, Generation((0,), 1)))[protocol.HEADER_BYTES :]
    with pytest.raises(ValueError, match=fault):
        protocol.decode(body.replace(b"AAAAAA==", packed.encode()))
