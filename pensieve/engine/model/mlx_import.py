# pyright: basic
"""mlx-lm into the worker's process, without what it imports and the worker never uses, and without what it does there.

mlx-lm imports transformers and the Hub's client at its top, for tokenizers and downloads. The worker knows neither, and
every start and every restart after a crash would wait for them: 1.1 s against 0.13 s (two x86-64 cores, 2026-11-22).
While mlx-lm is imported, stand-ins take those modules' places; afterwards they are gone again.

The process belongs to the worker: limits, environment and signal handlers are the same after an import as before it.
mlx-lm 0.32 sets the limit of open files to (2048, 4096), which fails under a lower hard limit and lowers a higher one;
the worker has the front end's, which is raised as far as it goes (server/run.py).
"""

import importlib
import resource
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pensieve.settings.resolve import environment_kept

_UNUSED = (
    "transformers",
    "transformers.tokenization_utils_base",
    "huggingface_hub",
    "mlx_lm.tokenizer_utils",
)
# Another source of models than the worker's folder; mlx-lm imports its client where this is set.
_ENVIRONMENT = {"MLXLM_USE_MODELSCOPE": "False"}


class _StandIn(ModuleType):
    """Has every name; mlx-lm only writes them into annotations, or calls them where a tokenizer is loaded."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _FixedLimits(ModuleType):
    """The module `resource`, but limits stay as they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(resource, name)

    def setrlimit(self, *_: object) -> None:
        """Set nothing."""

    prlimit = setrlimit


def import_mlx_lm() -> None:
    """Import mlx-lm, lightly if nobody has imported it before."""
    if "mlx_lm" in sys.modules:
        return
    absent = {name: _StandIn(name) for name in _UNUSED if name not in sys.modules}
    import_guarded("mlx_lm.generate", absent)


def import_guarded(name: str, stand_ins: Mapping[str, ModuleType] | None = None) -> ModuleType:
    """Import a library that must leave the process as it is; what it would import itself may be replaced meanwhile.

    Threads that it starts stay. Raises what the import raises.
    """
    replaced = {**(stand_ins or {}), "resource": _FixedLimits("resource")}
    with environment_kept(_ENVIRONMENT), _signals_kept(), _modules_replaced(replaced):
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
def _signals_kept() -> Generator[None]:
    """Those whose handlers Python knows."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
