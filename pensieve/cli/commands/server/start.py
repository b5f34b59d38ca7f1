"""`pensieve start`: checks the machine, gets the model, starts the server and waits for it.

In the background it runs itself again with `--foreground`. That process takes the lock, writes
the record, binds the port and runs the server.
"""

from pensieve.cli.lifecycle.launching import (
    default_dependencies,
    run_in_background,
    run_in_foreground,
    with_hosts,
)
from pensieve.cli.lifecycle.start_checks import check_access
from pensieve.cli.lifecycle.start_options import (
    ComputeDevice,
    Host,
    HostfileOption,
    Hosts,
    IdleUnload,
    LogFormatOption,
    Model,
    Port,
    Replicas,
    RequireKey,
    ShowContent,
    Speculation,
    Workers,
)
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags


def start(  # noqa: PLR0913 -- each is an option
    *,
    foreground: bool = False,
    no_wait: bool = False,
    port: Port = None,
    host: Host = None,
    model: Model = None,
    device: ComputeDevice = None,
    idle_unload: IdleUnload = None,
    speculation: Speculation = None,
    require_key: RequireKey = None,
    log_format: LogFormatOption = None,
    show_content: ShowContent = None,
    hosts: Hosts = None,
    replicas: Replicas = None,
    hostfile: HostfileOption = None,
    workers: Workers = None,
) -> int:
    """Start the server in the background and wait until it answers.

    For example:
      pensieve start
      pensieve start --model smollm2-135m --device cpu
      pensieve start --foreground --port 8080

    Parameters
    ----------
    foreground
        Stay in this terminal; Ctrl-C ends the server.
    no_wait
        Return at once; download and load the model in the background.
    """
    flags = Flags(
        model=model,
        device=device,
        host=host,
        port=port,
        idle_unload=idle_unload,
        speculation=speculation,
        require_key=require_key,
        log_format=log_format,
        show_content=show_content,
        hosts=hosts,
        replicas=replicas,
        hostfile=hostfile,
        workers=workers,
    )
    settings, flags = with_hosts(settings_module.resolve(flags), flags)
    check_access(settings)
    settings_module.require_one_plan(settings)
    if foreground:
        return run_in_foreground(settings, flags, default_dependencies())
    return run_in_background(settings, flags, default_dependencies(), is_awaited=not no_wait)
