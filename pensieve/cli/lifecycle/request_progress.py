"""Says in a line how far an open request is; for `chat` and `status`. Pure."""

from pensieve.cli.client.activity import Activity, OpenRequest
from pensieve.cli.ui.progress import counted, in_time, share_bar

BAR_CHARS = 12
MAX_REQUESTS = 8


def waiting_text(activity: Activity, request_id: str) -> str:
    """Return what the client of this request waits for; empty if that is not known."""
    request = next((each for each in activity.requests if each.id == request_id), None)
    match request:
        case OpenRequest(phase="queued"):
            return f"{_queued(activity, request)} …"
        case OpenRequest(phase="prompt"):
            share = _share(request)
            bar = "" if share is None else f" {share_bar(share, BAR_CHARS)}"
            return f"processing the prompt{bar}{_amount(request)} …"
        case _:
            return ""


def request_lines(activity: Activity) -> list[str]:
    """Return a line for each open request, the oldest first; at most `MAX_REQUESTS`."""
    shown = activity.requests[:MAX_REQUESTS]
    names = [f"{each.client or 'request'} {each.session or ''}".rstrip() for each in shown]
    width = max(map(len, names), default=0)
    lines = [
        f"{name:<{width}}  {_phase_text(activity, each)}"
        for name, each in zip(names, shown, strict=True)
    ]
    hidden = len(activity.requests) - len(shown)
    return [*lines, f"and {hidden:,} more: pensieve top"] if hidden else lines


def _phase_text(activity: Activity, request: OpenRequest) -> str:
    match request.phase:
        case "queued":
            return _queued(activity, request)
        case "prompt":
            return f"prompt{_amount(request)}"
        case "answer":
            rate = request.tokens_per_second
            return f"answer {counted(request.output_tokens, 'token')}" + (
                f", {rate:.1f} per second" if rate else ""
            )
        case phase:
            return phase


def _queued(activity: Activity, request: OpenRequest) -> str:
    others = sum(
        each.phase in {"prompt", "answer"} for each in activity.requests if each is not request
    )
    after = f" for {counted(others, 'other request')}" if others else ""
    return f"waiting{after}, {in_time(request.age_s)}"


def _share(request: OpenRequest) -> float | None:
    if not request.prompt_tokens or request.processed_tokens is None:
        return None
    return request.processed_tokens / request.prompt_tokens


def _amount(request: OpenRequest) -> str:
    share = _share(request)
    if share is None:
        return ""
    left = request.remaining_s
    about = "" if left is None else f", about {in_time(left)} left"
    return f" {share * 100:.0f} % of {counted(request.prompt_tokens or 0, 'token')}{about}"
