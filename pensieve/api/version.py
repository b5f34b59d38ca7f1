"""The version and betas of the API that a client requests, from its headers."""

from dataclasses import dataclass
from typing import Literal

Version = Literal["2023-06-01", "2026-10-21"]

_OLD = {"2023-01-01", "2023-06-01"}


@dataclass(frozen=True, slots=True)
class ApiVersion:
    version: Version = "2023-06-01"
    betas: frozenset[str] = frozenset()


def api_version_of(version: str | None, betas: str) -> ApiVersion:
    """Parse the headers `anthropic-version`, absent as None, and `anthropic-beta`.

    No version means 2023-06-01, an unknown one the newest.
    """
    return ApiVersion(
        version="2023-06-01" if version is None or version.strip() in _OLD else "2026-10-21",
        betas=frozenset(beta.strip() for beta in betas.split(",") if beta.strip()),
    )
