"""The entry point of `pensieve` and of `python -m pensieve`."""

import sys

from pensieve.isolation import isolate

INTERRUPTED = 130


def main() -> None:
    try:
        isolate()
        from pensieve.cli.app import run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
