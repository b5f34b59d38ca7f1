"""Which edition of the API a client speaks: its version and the betas it asks for. Unknown ones are as the newest."""

from dataclasses import dataclass
from typing import Literal

Version = Literal["2023-06-01", "2026-10-21"]

_OLD = {"2023-01-01", "2023-06-01"}


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """What the headers say of it."""

    version: Version = "2023-06-01"
    betas: frozenset[str] = frozenset()


def api_version_of(version: str | None, betas: str) -> ApiVersion:
    """The edition that `anthropic-version` and `anthropic-beta` name. Without a version it is the old one."""
    return ApiVersion(
        version="2023-06-01" if version is None or version.strip() in _OLD else "2026-10-21",
        betas=frozenset(beta.strip() for beta in betas.split(",") if beta.strip()),
    )
