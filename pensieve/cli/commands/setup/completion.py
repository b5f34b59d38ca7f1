"""`pensieve completion`: the script with which a shell completes pensieve's commands and options."""

from typing import Literal

from pensieve.cli.ui import output

# cyclopts' script defines a function and leaves the rest to a file of its name. Homebrew calls the file _pensieve, and
# people read the script as it is.
ZSH_END = """
if [ "$funcstack[1]" = "_pensieve" ]; then
  _cyclopts_pensieve "$@"
else
  compdef _cyclopts_pensieve pensieve
fi"""


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that completes commands and options.

    For example:
      pensieve completion zsh > ~/.zfunc/_pensieve
      source <(pensieve completion bash)
      pensieve completion fish > ~/.config/fish/completions/pensieve.fish

    Homebrew puts it in place by itself.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from pensieve.cli.app import build_app

    script = build_app().generate_completion(shell=shell).rstrip("\n")
    output.data(script + (ZSH_END if shell == "zsh" else ""))
    return 0
