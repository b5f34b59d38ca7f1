# pyright: basic
"""Imports mlx-lm into the worker without its unused dependencies and without side effects.

mlx-lm imports transformers and the Hub's client at its top, for tokenizers and downloads. The
worker uses neither, and every start and every restart after a crash would wait for them: 1.1 s
against 0.13 s (two x86-64 cores, 2026-11-22). Stand-ins replace those modules during the import and
are removed afterwards.

Limits, environment and signal handlers of the process are the same after an import as before.
mlx-lm 0.32 sets the limit of open files to (2048, 4096), which fails under a lower hard limit and
lowers a higher one; the worker keeps the limit that it inherits from the front end, which raises it
(server/run.py).
"""

import importlib
import resource
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pensieve.settings.resolve import environment_restored

_UNUSED = (
    "transformers",
    "transformers.tokenization_utils_base",
    "huggingface_hub",
    "mlx_lm.tokenizer_utils",
)
# mlx-lm imports the client of another model source if this is set.
_ENVIRONMENT = {"MLXLM_USE_MODELSCOPE": "False"}


class _StandIn(ModuleType):
    """Has every attribute; mlx-lm uses them in annotations and to load tokenizers only."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _FixedLimits(ModuleType):
    """The module `resource` without the ability to change limits."""

    def __getattr__(self, name: str) -> Any:
        return getattr(resource, name)

    def setrlimit(self, *_: object) -> None:
        """Ignore the call."""

    prlimit = setrlimit


def import_mlx_lm() -> None:
    """Import mlx-lm with stand-ins for its unused dependencies, unless already imported."""
    if "mlx_lm" in sys.modules:
        return
    absent = {name: _StandIn(name) for name in _UNUSED if name not in sys.modules}
    import_guarded("mlx_lm.generate", absent)


def import_guarded(name: str, stand_ins: Mapping[str, ModuleType] | None = None) -> ModuleType:
    """Import a library with `stand_ins` for its dependencies, without letting it change the
    process.

    Threads that it starts keep running. Raises what the import raises.
    """
    replaced = {**(stand_ins or {}), "resource": _FixedLimits("resource")}
    with environment_restored(_ENVIRONMENT), _signals_preserved(), _modules_replaced(replaced):
        return importlib.import_module(name)


@contextmanager
def _modules_replaced(stand_ins: Mapping[str, ModuleType]) -> Generator[None]:
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextmanager
def _signals_preserved() -> Generator[None]:
    """Restore the handlers that were set from Python."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
