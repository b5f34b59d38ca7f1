"""Tests stored prefixes with a valid checksum that this model did not write.

Each is a miss, never an answer or a failure.
"""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.disk.block_file import MAGIC
from tests.mlx.scheduler_bench import Bench, prompt_of, reference
from tests.support import tiny_architectures

# Full attention in blocks; a sliding window; a state space.
FAMILIES = ("llama", "gemma3_text", "qwen3_next")
# A whole block and a tail.
PROMPT = prompt_of(300)
FOLLOWING = (*PROMPT, 5)

Header = dict[str, Any]
Forgery = Callable[[Header, bytes], tuple[object, bytes]]


def parts_of(content: bytes) -> tuple[Header, bytes]:
    start = len(MAGIC) + 4
    end = start + int.from_bytes(content[len(MAGIC) : start], "big")
    return json.loads(content[start:end]), content[end:-4]


def with_checksum(header: object, numbers: bytes) -> bytes:
    """Return the bytes of a file with a valid checksum."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = MAGIC + len(text).to_bytes(4, "big") + text + numbers
    return body + zlib.crc32(body).to_bytes(4, "big")


def with_arrays(change: Callable[[str, list[int]], object]) -> Forgery:
    def forge(header: Header, numbers: bytes) -> tuple[object, bytes]:
        return header | {"arrays": [change(*array) for array in header["arrays"]]}, numbers

    return forge


def with_fields(**fields: object) -> Forgery:
    return lambda header, numbers: (header | fields, numbers)


def with_one_token(header: Header, _: bytes) -> tuple[object, bytes]:
    """Arrays of one token, which MLX would broadcast."""
    arrays = [[dtype, [*shape[:2], 1, *shape[3:]]] for dtype, shape in header["arrays"]]
    lengths = [
        length // shape[2] if len(shape) == 4 else length
        for (_, shape), length in zip(header["arrays"], header["lengths"], strict=True)
    ]
    return header | {"arrays": arrays, "lengths": lengths}, bytes(sum(lengths))


def in_half_precision(header: Header, numbers: bytes) -> tuple[object, bytes]:
    arrays = [["float16", shape] for _, shape in header["arrays"]]
    lengths = [length // 2 for length in header["lengths"]]
    return header | {"arrays": arrays, "lengths": lengths}, numbers[: sum(lengths)]


def with_an_array_more(header: Header, numbers: bytes) -> tuple[object, bytes]:
    arrays = [*header["arrays"], ["void", [1]]]
    return header | {"arrays": arrays, "lengths": [*header["lengths"], 1]}, numbers + b"x"


def with_other_numbers_in_its_outline(header: Header, numbers: bytes) -> tuple[object, bytes]:
    def changed(value: Any) -> Any:
        match value:
            case list():
                return [changed(item) for item in value]
            case int():
                return value + 1
            case _:
                return value

    return header | {"outline": changed(header["outline"])}, numbers


FORGERIES: dict[str, Forgery] = {
    "other heads": with_arrays(lambda dtype, shape: [dtype, [shape[0], 2 * shape[1], *shape[2:]]]),
    "axes in another order": with_arrays(lambda dtype, shape: [dtype, shape[::-1]]),
    "huge": with_arrays(lambda dtype, shape: [dtype, [1, 1, 2**31 - 1, *shape[3:]]]),
    "beyond any size": with_arrays(lambda dtype, _: [dtype, [10**30]]),
    "negative": with_arrays(lambda dtype, shape: [dtype, [-1, *shape[1:]]]),
    "shapes that are texts": with_arrays(lambda dtype, _: [dtype, "abc"]),
    "another type": with_arrays(lambda _, shape: ["int32", shape]),
    "no type": with_arrays(lambda _, shape: ["no_such_type", shape]),
    "a type that is a function": with_arrays(lambda _, shape: ["eval", shape]),
    "arrays that are numbers": with_fields(arrays=[1, 2]),
    "no arrays": lambda header, _: (header | {"arrays": [], "lengths": []}, b""),
    "half precision": in_half_precision,
    "one token": with_one_token,
    "an array more": with_an_array_more,
    "token ids beyond 32 bits": with_fields(tokens=[2**40, *PROMPT[1:256]]),
    "negative token ids": with_fields(tokens=[-1]),
    "token ids that are texts": with_fields(tokens=["a"] * 256),
    "tokens that are a text": with_fields(tokens="abc"),
    "no tokens": with_fields(tokens=[]),
    "other tokens": with_fields(tokens=[7] * 256),
    "another model's": with_fields(fingerprint="00" * 16),
    "no outline": with_fields(outline=None),
    "an outline of other arrays": with_fields(outline=[[10**9, -1]] * 4),
    "an outline of other layers": with_fields(outline=[]),
    "another place, window or end": with_other_numbers_in_its_outline,
    "lengths that overlap": with_fields(lengths=[-5, 5]),
    "a header that is a list": lambda _, numbers: ([], numbers),
    "a header that is nested deep": lambda _, numbers: (b"[" * 100_000, numbers),
    "a header that is no text": lambda _, numbers: (b"\xff\xfe{", numbers),
    "missing bytes": lambda header, numbers: (header, numbers[:-1]),
    "trailing bytes": lambda header, numbers: (header, numbers + bytes(64)),
    "a gigabyte left over": lambda header, _: (header, b""),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_architectures.build(request.param)


@pytest.fixture(scope="module")
def following(model: Any) -> tuple[int, ...]:
    """The next turn: untrimmable layers are restored only to continue a whole sequence."""
    return (*PROMPT, *reference(model, PROMPT, 4), 5)


@pytest.fixture(scope="module")
def expected(model: Any, following: tuple[int, ...]) -> list[int]:
    return reference(model, following, 4)


@pytest.fixture(scope="module")
def whole(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the stored prompt."""
    folder = tmp_path_factory.mktemp("whole")
    bench = Bench(model, folder)
    bench.run(PROMPT, max_tokens=4)
    bench.close()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_file_rewritten_unchanged_is_a_hit(
    model: Any, following: tuple[int, ...], expected: list[int], whole: dict, tmp_path: Path
) -> None:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(with_checksum(*parts_of(content)))
    bench = Bench(model, tmp_path)
    assert bench.run(following, max_tokens=4) == [expected]
    assert bench.cached == [len(following) - 1]
    bench.close()


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_file_is_a_miss_and_is_replaced(
    model: Any,
    following: tuple[int, ...],
    expected: list[int],
    whole: dict[str, bytes],
    forgery: str,
    tmp_path: Path,
) -> None:
    for name, content in whole.items():
        (tmp_path / name).write_bytes(with_checksum(*FORGERIES[forgery](*parts_of(content))))
        if forgery == "a gigabyte left over":
            os.truncate(tmp_path / name, 2**30)
    bench = Bench(model, tmp_path)
    assert bench.run(following, max_tokens=4) == [expected]
    assert bench.failed == []
    bench.close()
    after = Bench(model, tmp_path)
    after.run((*following, *expected, 6), max_tokens=1)
    assert after.cached == [len(following) + len(expected)]
    after.close()
