"""Check the other machines that are to run the model, by ssh. Yields nothing without any."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red
from pensieve.errors import ModelError, PensieveError
from pensieve.hosts.check import HostReport, examined, model_of
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.settings.resolve import Settings

Examine = Callable[[Sequence[str], Settings, ModelFolder], list[HostReport]]


def check(context: DoctorContext, examine: Examine = examined) -> Iterator[Finding]:
    settings = _of_server(context)
    if not settings.other_hosts:
        return
    try:
        reports = examine(settings.other_hosts, settings, _model(settings))
    except PensieveError as error:
        yield red("machines", error.message, "pensieve config set ssh_command ssh")
        return
    for report in reports:
        yield (
            red("machines", report.line, report.fix)
            if report.problem
            else ok("machines", report.line)
        )


def _of_server(context: DoctorContext) -> Settings:
    """Return the settings with the hosts and the model of a running server."""
    names = ("hosts", "hostfile")
    flags: Mapping[str, object] = context.record.flags if context.record else {}
    chosen = {name: str(flags.get(name, getattr(context.settings, name))) for name in names}
    return replace(context.settings, model=context.model, **chosen)


def _model(settings: Settings) -> ModelFolder:
    try:
        return model_of(settings)
    except ModelError:  # another finding's
        return ModelFolder("", "", settings.paths.models / "none")
