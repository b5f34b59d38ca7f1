"""`pensieve completion`: the script with which a shell completes pensieve's commands and options."""

from typing import Literal

from pensieve.cli import output


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

    output.data(build_app().generate_completion(shell=shell).rstrip("\n"))
    return 0
