# pyright: basic
"""mlx-lm into the worker's process without what it imports and the worker never uses.

mlx-lm imports transformers and the Hub's client at its top, for tokenizers and downloads. The worker knows neither, and
every start and every restart after a crash would wait for them: 1.1 s against 0.13 s (two x86-64 cores, 2026-11-22).
While mlx-lm is imported, stand-ins take those modules' places; afterwards they are gone again.
"""

import importlib
import sys
from types import ModuleType

_UNUSED = (
    "transformers",
    "transformers.tokenization_utils_base",
    "huggingface_hub",
    "mlx_lm.tokenizer_utils",
)


class _StandIn(ModuleType):
    """Has every name; mlx-lm only writes them into annotations, or calls them where a tokenizer is loaded."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_mlx_lm() -> None:
    """Import mlx-lm, lightly if nobody has imported it before."""
    absent = [name for name in _UNUSED if name not in sys.modules]
    if "mlx_lm" in sys.modules:
        return
    for name in absent:
        sys.modules[name] = _StandIn(name)
    try:
        importlib.import_module("mlx_lm.generate")
    finally:
        for name in absent:
            del sys.modules[name]
