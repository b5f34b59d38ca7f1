"""`pensieve keys`: the keys of a team that shares this server. Works with and without a server."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from json import dumps
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pensieve.cli.lifecycle.start_options import whole_number
from pensieve.cli.ui import output
from pensieve.credentials.key_usage import KeyUsage, day_of, read_usage
from pensieve.credentials.named_keys import (
    KeyLimits,
    NamedKey,
    add_key,
    limit_key,
    read_keys,
    revoke_key,
)
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import is_loopback

# None: not changed.
Limit = Annotated[int | None, Parameter(converter=whole_number, validator=Number(gte=0, lt=10**15))]

keys = App(
    name="keys",
    help="""\
Create, list and revoke the keys of a team that shares this server.

For example:
  pensieve keys add anna
  pensieve keys add build-server --concurrent 2 --tokens-per-day 2000000
  pensieve keys list
  pensieve keys limit anna --per-minute 30
  pensieve keys revoke anna

Each person has a key of their own, with limits of its own: clients take turns,
and each sees only their own files, batches and responses. The server's own
key (api_key) is the administrator's. A running server notices every change.
""",
)


@keys.command
def add(
    name: str,
    /,
    *,
    concurrent: Limit = None,
    per_minute: Limit = None,
    tokens_per_day: Limit = None,
    json: bool = False,
) -> int:
    """Create a key and print it. It is shown once: only a hash of it is kept.

    For example:
      pensieve keys add anna

    Parameters
    ----------
    name
        Whose key it is: lower-case letters, digits, dots, underscores, hyphens.
    concurrent
        Answer at most this many of its requests at one time; the default is 8, 0 means
        no limit.
    per_minute
        Accept at most this many requests a minute; 0, the default, means no limit.
    tokens_per_day
        Accept no request after this many tokens of prompts (without cached ones) and
        answers on one day (UTC); 0, the default, means no limit.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    limits = _changed(KeyLimits(), concurrent, per_minute, tokens_per_day)
    key = add_key(settings.paths.keys_file, name, limits, time.time())
    if json:
        output.data(dumps({"name": name, "key": key, "limits": _limits(limits)}, indent=2))
        return 0
    output.data(key)
    output.note(f"This is the key of {name}. It is shown only now; a running server accepts it.")
    if is_loopback(settings.host):
        output.note(
            "The server listens on this machine alone. To let other machines in:\n"
            "  pensieve config set host 0.0.0.0\n  pensieve restart"
        )
    return 0


@keys.command(name="list")
def list_(*, json: bool = False) -> int:
    """List the keys with their limits and their last use.

    For example:
      pensieve keys list

    Parameters
    ----------
    json
        Print one JSON list instead.
    """
    paths = settings_module.resolve_paths()
    found, usage = read_keys(paths.keys_file), read_usage(paths.key_usage_file)
    rows = [_row(key, usage.get(key.name, KeyUsage()), time.time()) for key in found]
    if json:
        output.data(dumps(rows, indent=2))
    elif rows:
        output.data(_table(rows))
    else:
        output.data("There are no named keys.")
        output.note("Create one:\n  pensieve keys add NAME")
    return 0


@keys.command
def limit(
    name: str,
    /,
    *,
    concurrent: Limit = None,
    per_minute: Limit = None,
    tokens_per_day: Limit = None,
    json: bool = False,
) -> int:
    """Change the limits of a key; the key stays.

    For example:
      pensieve keys limit anna --tokens-per-day 2000000

    Parameters
    ----------
    name
        The key, as `pensieve keys list` names it.
    concurrent
        Answer at most this many of its requests at one time; 0 means no limit.
    per_minute
        Accept at most this many requests a minute; 0 means no limit.
    tokens_per_day
        Accept no request after this many tokens on one day (UTC); 0 means no limit.
    json
        Print one JSON object instead.
    """
    paths = settings_module.resolve_paths()
    limits = limit_key(
        paths.keys_file,
        name,
        lambda before: _changed(before, concurrent, per_minute, tokens_per_day),
    )
    if json:
        output.data(dumps({"name": name, "limits": _limits(limits)}, indent=2))
    else:
        output.data(f"{name}: {_limits_text(_limits(limits))}")
    return 0


@keys.command
def revoke(name: str, /, *, json: bool = False) -> int:
    """Revoke a key: new requests with it are refused from now on.

    For example:
      pensieve keys revoke anna

    What it has stored (files, batches, responses) stays, and belongs to the next key of
    the same name.

    Parameters
    ----------
    name
        The key, as `pensieve keys list` names it.
    json
        Print one JSON object instead.
    """
    revoke_key(settings_module.resolve_paths().keys_file, name)
    if json:
        output.data(dumps({"name": name, "is_revoked": True}, indent=2))
    else:
        output.data(f"The key of {name} is revoked. Answers that it waits for are completed.")
    return 0


def _changed(
    before: KeyLimits,
    concurrent: int | None,
    requests_per_minute: int | None,
    tokens_per_day: int | None,
) -> KeyLimits:
    given = {
        "concurrent": concurrent,
        "requests_per_minute": requests_per_minute,
        "tokens_per_day": tokens_per_day,
    }
    return replace(before, **{name: value for name, value in given.items() if value is not None})


def _row(key: NamedKey, usage: KeyUsage, now: float) -> dict[str, object]:
    # An earlier key of the same name may have been used before.
    is_used = usage.last_used_at >= key.created_at
    return {
        "name": key.name,
        "created_at": _rfc3339(key.created_at),
        "last_used_at": _rfc3339(usage.last_used_at) if is_used else None,
        "tokens_today": usage.tokens_on(day_of(now)),
        "limits": _limits(key.limits),
    }


def _limits(limits: KeyLimits) -> Mapping[str, int | None]:
    """Return the limits by name; None: no limit."""
    return {
        "concurrent": limits.concurrent or None,
        "requests_per_minute": limits.requests_per_minute or None,
        "tokens_per_day": limits.tokens_per_day or None,
    }


def _limits_text(limits: Mapping[str, int | None]) -> str:
    texts = {
        "concurrent": "{:,} at one time",
        "requests_per_minute": "{:,} requests a minute",
        "tokens_per_day": "{:,} tokens a day",
    }
    given = [texts[name].format(limit) for name, limit in limits.items() if limit is not None]
    return ", ".join(given) or "no limits"


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    cells = [("NAME", "CREATED", "LAST USED", "TODAY", "LIMITS")]
    for row in rows:
        limits: Mapping[str, int | None] = row["limits"]  # pyright: ignore[reportAssignmentType]
        cells.append(
            (
                str(row["name"]),
                _minute(row["created_at"]),
                _minute(row["last_used_at"]),
                f"{row['tokens_today']:,} tokens",
                _limits_text(limits),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _minute(time_text: object) -> str:
    return "never" if time_text is None else str(time_text)[:16].replace("T", " ")


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
