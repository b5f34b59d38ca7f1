"""The tree of errors that pensieve raises on purpose, by whose fault they are.

Each is raised where the fault is found and translated once at a boundary: `server/errors.py` gives
it an HTTP status and Anthropic's envelope, `cli/app.py` a message, a hint and an exit code. This
module knows neither.
"""

from typing import ClassVar


class PensieveError(Exception):
    """What happened (`message`) and, if there is one, the way to fix it (`hint`)."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(PensieveError):
    """The client's fault: the request cannot be answered. Sending it again does not help."""

    # Machine-readable code, Anthropic's where it has one, for errors that clients handle specially.
    error_code: ClassVar[str | None] = None


class InvalidRequestError(RequestError):
    """The content of the request is wrong; the message follows Anthropic's wording."""


class PromptTooLongError(InvalidRequestError):
    """The prompt does not fit the model's context. Clients compact the conversation when they read
    this message.
    """

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(f"prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum")
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class PromptUnprocessableError(InvalidRequestError):
    """The engine crashed repeatedly while it processed the prompt; a length that works is unknown.

    Clients shorten the conversation when a message begins like this one. It names no limit, because
    they would compute with it.
    """

    def __init__(self, deaths: int, prompt_tokens: int, done_tokens: int) -> None:
        super().__init__(
            f"prompt is too long to be processed here: the engine ended {deaths} times at its first"
            f" {prompt_tokens} tokens, the last time after {done_tokens}. It is refused until the"
            " server restarts; a shorter or another one may be answered."
        )
        self.deaths = deaths
        self.prompt_tokens = prompt_tokens
        self.done_tokens = done_tokens


class ThreadAlreadyContinuedError(InvalidRequestError):
    """The answer that the request continues has already been continued."""

    error_code = "thread_already_continued"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: {message_id} has already been continued."
            " Continue from the latest message of the thread, or create a new one."
        )


class ThreadInFlightError(InvalidRequestError):
    """Another request is continuing the same answer at this moment."""

    error_code = "thread_continue_in_flight"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: another request is still continuing from {message_id}."
        )


class ThreadFingerprintError(InvalidRequestError):
    """A field that is fixed per thread differs from the thread's first request. Clients look for
    the end of the message.
    """

    error_code = "thread_fingerprint_mismatch"

    def __init__(self, *fields: str) -> None:
        super().__init__(
            "thread: these fields stay as they were when the thread was created, and `system` and"
            f" `tools` are not sent again; differing field(s): {', '.join(fields)}"
        )


class BodyEncodingUnsupportedError(InvalidRequestError):
    """The body is compressed. Such bodies are refused: their inflated size is not known in
    advance.
    """

    error_code = "request_body_encoding_unsupported"

    def __init__(self) -> None:
        super().__init__(
            "content-encoding: compressed request bodies are not read; send it uncompressed"
        )


class CharsetUnsupportedError(InvalidRequestError):
    """The content type declares another charset than JSON's."""

    error_code = "unsupported_charset"

    def __init__(self) -> None:
        super().__init__("content-type: charset should be 'utf-8'")


class BodyTimeoutError(InvalidRequestError):
    """The body did not arrive completely in time."""

    error_code = "request_body_timeout"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request body did not arrive: {reason}.")


class TooManyToolsError(InvalidRequestError):
    """The request has more tools than the server accepts."""

    error_code = "available_tools_limit_exceeded"


class AuthenticationError(RequestError):
    """The key is missing or wrong."""


class ForbiddenError(RequestError):
    """The request has a foreign Host or Origin, which no client of ours sends."""


class NotFoundError(RequestError):
    """There is no such path, model or object."""


class ModelNotFoundError(NotFoundError):
    """No model is served under the requested name."""

    def __init__(self, model_id: str) -> None:
        super().__init__(f"model: {model_id}")


class ThreadNotFoundError(NotFoundError):
    """The thread that the request continues is not stored, or no longer."""

    error_code = "thread_not_found"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: no thread is stored for {message_id}."
            " Send the whole conversation to create a new one."
        )


class FileExpiredError(NotFoundError):
    """The file has expired and its content is deleted."""

    error_code = "file_expired"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"File {file_id} has expired; its content is no longer available.")


class PreviousResponseNotFoundError(InvalidRequestError):
    """The response that the request continues is not stored, or no longer."""

    error_code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"previous_response_id: Previous response with id '{response_id}' not found."
        )


class StorageQuotaExceededError(RequestError):
    """What the server stores for its clients (files, message batches) would exceed its limit."""

    error_code = "storage_quota_exceeded"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""


class RequestTooLargeError(RequestError):
    """The body exceeds the server's limit."""


class HeadTooLargeError(RequestError):
    """The request line and headers exceed the server's limit."""


class RateLimitedError(RequestError):
    """The client's key has reached one of its limits. Sending the request later helps."""

    should_retry: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TokensSpentError(RateLimitedError):
    """The key has spent its tokens of the day: nobody waits that long for an answer."""

    should_retry = False


class SettingsError(PensieveError):
    """A flag, an environment variable or the configuration file is wrong."""

    exit_code = 78


class UsageError(PensieveError):
    """The command line is wrong."""

    exit_code = 2


class MachineError(PensieveError):
    """This machine, or its state, does not allow the operation."""


class UnsupportedPlatformError(MachineError):
    """The machine has no Apple silicon, and no other device was requested."""


class HostError(MachineError):
    """Another machine that the engine is to run on cannot run it now."""


class PortInUseError(MachineError):
    """Another program listens on the server's port."""

    exit_code = 69


class ServerUnavailableError(MachineError):
    """No pensieve server answers."""

    exit_code = 69


class NoServerError(ServerUnavailableError):
    """Nothing listens at the server's address."""

    def __init__(self, base_url: str) -> None:
        super().__init__(
            f"No pensieve server answers at {base_url}.", hint="Start it:\n  pensieve start"
        )


class ForeignServerError(ServerUnavailableError):
    """The program at the server's address has not proved that it is the user's own server."""

    def __init__(self, base_url: str, *, hint: str) -> None:
        super().__init__(
            f"The program at {base_url} has not proved to be your pensieve server, so neither your"
            " key nor your messages are sent to it.",
            hint=hint,
        )


class ProgramMissingError(MachineError):
    """Another program that pensieve runs is not installed."""

    exit_code = 69


class InstallationError(MachineError):
    """A Python package that pensieve needs is missing, or shadowed by another one."""


class StorageError(MachineError):
    """What is stored on disk cannot be read or written: a failing drive, or a damaged database."""


class DiskFullError(StorageError):
    """The disk has not enough free space for the write."""

    exit_code = 73


class StartFailedError(MachineError):
    """The background server ended, or its engine failed, before it could answer.

    Its exit code is the server's, where that explains the failure.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class RecordUnreadableError(MachineError):
    """A server runs, but the record with its address is missing or damaged."""

    exit_code = 69

    def __init__(self, file: str, pid: int | None, *, is_missing: bool) -> None:
        process = "" if pid is None else f" (pid {pid})"
        damage = "missing" if is_missing else "damaged"
        super().__init__(
            f"A server runs{process}, but its record is {damage}, so its address is unknown:"
            f" {file}",
            hint="Restart it:\n  pensieve restart",
        )
        self.pid = pid


class ProgramReplacedError(MachineError):
    """The program was removed from the disk while the server ran from it, as `brew upgrade`
    does.
    """

    exit_code = 75

    def __init__(self) -> None:
        super().__init__(
            "pensieve was replaced or removed while the server ran from it, so the server has"
            " ended.",
            hint="As a Homebrew service it comes back by itself. Otherwise start the new one:\n"
            "  pensieve start",
        )


class StopFailedError(MachineError):
    """The server did not end in time."""


class NotWritableError(MachineError):
    """A folder or file of pensieve cannot be created, or is unsafe to use."""

    exit_code = 73


class ModelError(PensieveError):
    """The model's fault."""


class ModelUnavailableError(ModelError):
    """The model is not on this machine and cannot be fetched now."""

    exit_code = 69


class ModelDamagedError(ModelError):
    """The model's files are incomplete, modified, or of a format that pensieve does not load."""

    exit_code = 65


class ModelUnsupportedError(ModelError):
    """Neither pensieve nor its mlx-lm loads this kind of model. Fetching it again does not help."""

    exit_code = 65


class EngineError(PensieveError):
    """The engine's fault."""


class EngineBusyError(EngineError):
    """The queue is full, or the model is not loaded yet. Trying again helps."""

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GrammarError(EngineError):
    """The grammar does not compile, or costs too much. A looser one may work."""


class WorkerDiedError(EngineBusyError):
    """The engine worker ended during a generation. It is restarted; trying again helps."""


class LethalRequestError(EngineError):
    """The engine worker ended repeatedly on this request. Sending it again does not help."""


class EngineFailedError(EngineError):
    """The engine cannot run: the model does not load, or the worker dies at every start."""
