"""Logarithmic probabilities of an answer's tokens. Only OpenAI's API has them."""

from pensieve.api.base import ApiModel


class TokenLogprob(ApiModel):
    """A token and the natural logarithm of its probability."""

    token: str  # bytes that are no whole character are escaped
    logprob: float
    bytes: tuple[int, ...]  # of its name, for a control token


class TextLogprob(TokenLogprob):
    """A token of a text, or the part of it that is in the text, and the likeliest tokens."""

    top_logprobs: tuple[TokenLogprob, ...] = ()
