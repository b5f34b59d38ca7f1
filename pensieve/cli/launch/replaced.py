"""Keeps the user's own values of variables that `pensieve env --for` replaces. Pure.

A value is copied to another variable by the shell itself, so that it is not printed.
"""

from collections.abc import Iterable, Mapping, Sequence

from pensieve.cli.ui.shells import Copy

PREFIX = "PENSIEVE_REPLACED_"


def to_keep(values: Mapping[str, str], environ: Mapping[str, str]) -> Sequence[Copy]:
    """Return a copy of each variable that has another value than ours, unless it has one."""
    return [
        Copy(PREFIX + name, name, own)
        for name, value in values.items()
        if (own := environ.get(name)) and own != value and PREFIX + name not in environ
    ]


def to_restore(names: Iterable[str], environ: Mapping[str, str]) -> Sequence[Copy]:
    return [Copy(name, PREFIX + name, own) for name in names if (own := environ.get(PREFIX + name))]
