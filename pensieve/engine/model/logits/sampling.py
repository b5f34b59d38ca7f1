# pyright: basic
"""Sampling: temperature, top-k, top-p, min-p, in this order.

Used by decode_batch.py, after bias, penalties and the grammar's mask (logits/adjustments.py,
grammar/mask.py). The order is that of Hugging Face and llama.cpp; the mask is the last step that
changes single logits. Replaces mlx-lm's `make_sampler`, which computes the nucleus before the
temperature, raises inside `mx.compile` on a bad value and thereby breaks sampling for the whole
process, and has no seed per request.
"""

import math
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Sampling


class Sampler(Protocol):
    def __call__(self, logits: mx.array, position: int = 0) -> mx.array:
        """Draw token ids [rows] from logits [rows, vocabulary], normalized or not.

        position: in the answer, of the first row's token. Only seeded samplers use it; their rows
        are consecutive positions.
        """
        ...


def make_sampler(sampling: Sampling) -> Sampler:
    """Return a function from logits to token ids.

    Requests with equal values of these and no seed share one function, which decode_batch.py calls
    once for all of their rows. A seeded one draws each token with a random key of seed and
    position, so its tokens depend neither on other requests nor on how many tokens a step draws.
    """
    if sampling.temperature == 0:
        return _greedy
    if sampling.seed is None:
        return _unseeded(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    return _seeded(sampling)


def _greedy(logits: mx.array, position: int = 0) -> mx.array:
    return mx.argmax(logits, axis=-1)


@lru_cache(maxsize=256)
def _unseeded(temperature: float, top_k: int, top_p: float, min_p: float) -> Sampler:
    sampling = Sampling(temperature, top_p, top_k, min_p=min_p)

    def sample(logits: mx.array, position: int = 0) -> mx.array:
        return mx.random.categorical(_narrow(logits, sampling))

    return sample


def _seeded(sampling: Sampling) -> Sampler:
    def sample(logits: mx.array, position: int = 0) -> mx.array:
        rows, vocabulary = logits.shape
        keys = (_key(sampling.seed, position + row) for row in range(rows))
        noise = [mx.random.gumbel((1, vocabulary), key=key) for key in keys]
        # The Gumbel-max trick, as in `mx.random.categorical`.
        return mx.argmax(_narrow(logits, sampling) + mx.concatenate(noise), axis=-1)

    return sample


def _key(seed: int | None, position: int) -> mx.array:
    digest = blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return mx.random.key(int.from_bytes(digest, "big"))


def _narrow(logits: mx.array, sampling: Sampling) -> mx.array:
    logits = logits * (1 / max(sampling.temperature, 1e-3))
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = _keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = _keep_nucleus(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = _keep_min_p(logits, sampling.min_p)
    return logits


def _keep_top_k(logits: mx.array, top_k: int) -> mx.array:
    threshold = mx.min(mx.topk(logits, top_k, axis=-1), axis=-1, keepdims=True)
    return mx.where(logits < threshold, -mx.inf, logits)


def _keep_min_p(logits: mx.array, min_p: float) -> mx.array:
    """Drop tokens below `min_p` times the top probability.

    Source: https://arxiv.org/abs/2407.01082.
    """
    threshold = mx.max(logits, axis=-1, keepdims=True) + math.log(min_p)
    return mx.where(logits < threshold, -mx.inf, logits)


def _keep_nucleus(logits: mx.array, top_p: float) -> mx.array:
    """Keep the likeliest tokens up to and including the one that reaches probability `top_p`."""
    probabilities = mx.softmax(logits.astype(mx.float32), axis=-1)
    order = mx.argsort(-probabilities, axis=-1)
    ordered = mx.take_along_axis(probabilities, order, axis=-1)
    is_outside = mx.cumsum(ordered, axis=-1) - ordered >= top_p
    masked = mx.where(is_outside, -mx.inf, mx.take_along_axis(logits, order, axis=-1))
    return mx.put_along_axis(logits, order, masked, axis=-1)
