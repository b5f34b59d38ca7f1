"""`pensieve version`: prints the versions of pensieve, its libraries and the system."""

import json
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from pensieve import __version__
from pensieve.cli.ui import output

LIBRARIES = ("mlx", "mlx-lm", "transformers", "llguidance")


def version(*, json_: bool = False) -> int:
    """Print the versions of pensieve and its libraries.

    For example:
      pensieve version

    Parameters
    ----------
    json_
        Print one JSON object instead.
    """
    versions = {
        "pensieve": __version__,
        "python": platform.python_version(),
        **{name.replace("-", "_"): _installed(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.mac_ver()[0] or platform.release()}",
        "architecture": platform.machine(),
    }
    if json_:
        output.data(json.dumps(versions, indent=2))
    else:
        output.data(
            "\n".join(f"{name:<13} {value or 'not installed'}" for name, value in versions.items())
        )
    return 0


def _installed(name: str) -> str | None:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return None
