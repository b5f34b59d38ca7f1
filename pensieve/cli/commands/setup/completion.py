"""`pensieve completion`: prints the script that completes commands and options in a shell."""

from typing import Literal

from pensieve.cli.ui import output

# cyclopts' script only defines a function and expects to be autoloaded from a file of that name.
# Homebrew's file is named _pensieve, and users source the script directly.
ZSH_END = """
if [ "$funcstack[1]" = "_pensieve" ]; then
  _cyclopts_pensieve "$@"
else
  compdef _cyclopts_pensieve pensieve
fi"""


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that completes commands and options in a shell.

    For example:
      pensieve completion zsh > ~/.zfunc/_pensieve
      source <(pensieve completion bash)
      pensieve completion fish > ~/.config/fish/completions/pensieve.fish

    Homebrew installs it.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from pensieve.cli.app import build_app

    script = build_app().generate_completion(shell=shell).rstrip("\n")
    output.data(script + (ZSH_END if shell == "zsh" else ""))
    return 0
