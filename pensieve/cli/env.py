"""`pensieve env`: the variables that point Anthropic clients at the server, in the words of the user's shell."""

from pensieve import settings as settings_module
from pensieve.cli import output
from pensieve.cli.shells import Shell, export, shell_of, usage
from pensieve.cli.target import Target, find_target

MODEL_VARIABLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
)


def env(*, shell: Shell | None = None) -> int:
    """Print the variables that point Claude Code and other Anthropic clients here.

    For example:
      eval "$(pensieve env)"                 # bash, zsh, sh
      pensieve env | source                  # fish

    Parameters
    ----------
    shell
        bash, zsh, fish or sh; the one that $SHELL names unless given.
    """
    target = find_target(settings_module.resolve())
    spoken = shell or shell_of(settings_module.shell_path())
    lines = [export(spoken, name, value) for name, value in variables(target).items()]
    output.data("\n".join([*lines, f"# Use it with: {usage(spoken)}"]))
    if not target.is_running:
        output.warning("the server does not run. Start it with: pensieve start")
    return 0


def variables(target: Target) -> dict[str, str]:
    """Names and values, for any shell. The key goes out under both names: clients differ in which they read."""
    return {
        "ANTHROPIC_BASE_URL": target.base_url,
        "ANTHROPIC_API_KEY": target.api_key,
        "ANTHROPIC_AUTH_TOKEN": target.api_key,
        **dict.fromkeys(MODEL_VARIABLES, target.model),
    }
