"""Every error that pensieve raises on purpose, one tree, by whose fault it is.

An error is raised where it is known and translated once at a boundary: `server/errors.py` gives it an HTTP
status and Anthropic's envelope, `cli/app.py` a message, a hint and an exit code. This module knows neither.
"""

from typing import ClassVar


class PensieveError(Exception):
    """What happened (`message`) and, where there is one, the way out (`hint`)."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(PensieveError):
    """The client's fault: the request cannot be answered as it is. Sending it again does not help."""

    # Anthropic's name for the case, where it has one; clients choose their way round by it.
    error_code: ClassVar[str | None] = None


class InvalidRequestError(RequestError):
    """The request's content is wrong; the message is in Anthropic's wording."""


class PromptTooLongError(InvalidRequestError):
    """The prompt does not fit the model's context. Clients compact the conversation on this wording."""

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(f"prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum")
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class PromptUnprocessableError(InvalidRequestError):
    """The engine ended again and again while it processed the prompt, and where it would not is not known.

    Clients shorten the conversation on the first words. A limit is not named: they would count with it.
    """

    def __init__(self, deaths: int, prompt_tokens: int, done_tokens: int) -> None:
        super().__init__(
            f"prompt is too long to be processed here: the engine ended {deaths} times at its first"
            f" {prompt_tokens} tokens, the last time after {done_tokens}. It is refused until the"
            " server restarts; a shorter or another one may be answered."
        )


class ThreadAlreadyContinuedError(InvalidRequestError):
    """The answer that the request goes on from has an answer after it already."""

    error_code = "thread_already_continued"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: {message_id} has already been continued."
            " Continue from the latest message of the thread, or create a new one."
        )


class ThreadInFlightError(InvalidRequestError):
    """Another request is going on from the same answer at this moment."""

    error_code = "thread_continue_in_flight"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: another request is still continuing from {message_id}."
        )


class ThreadFingerprintError(InvalidRequestError):
    """A field that holds for a whole thread is not what the thread was created with. Clients look for the last words."""

    error_code = "thread_fingerprint_mismatch"

    def __init__(self, *fields: str) -> None:
        super().__init__(
            "thread: these fields stay as they were when the thread was created, and `system` and"
            f" `tools` are not sent again; differing field(s): {', '.join(fields)}"
        )


class BodyEncodingUnsupportedError(InvalidRequestError):
    """The body is compressed. It is read as it is only: what it would inflate to is not known before."""

    error_code = "request_body_encoding_unsupported"

    def __init__(self) -> None:
        super().__init__(
            "content-encoding: compressed request bodies are not read; send it as it is"
        )


class CharsetUnsupportedError(InvalidRequestError):
    """The body is said to be in another encoding than JSON's."""

    error_code = "unsupported_charset"

    def __init__(self) -> None:
        super().__init__("content-type: charset should be 'utf-8'")


class BodyTimeoutError(InvalidRequestError):
    """The body did not come to its end in time."""

    error_code = "request_body_timeout"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request body did not arrive: {reason}.")


class TooManyToolsError(InvalidRequestError):
    """More tools than a prompt is made of."""

    error_code = "available_tools_limit_exceeded"


class AuthenticationError(RequestError):
    """The key is missing or wrong."""


class ForbiddenError(RequestError):
    """The request comes from where no client of ours can be: a foreign Host or Origin."""


class NotFoundError(RequestError):
    """No such path, model or object."""


class ThreadNotFoundError(NotFoundError):
    """The thread that the request goes on from is not kept any more, or never was."""

    error_code = "thread_not_found"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: no thread is kept for {message_id}."
            " Send the whole conversation to create a new one."
        )


class FileExpiredError(NotFoundError):
    """The file's time is over; its content is gone."""

    error_code = "file_expired"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"File {file_id} has expired; its content is no longer available.")


class StorageQuotaExceededError(RequestError):
    """What the server keeps for its clients (files, message batches) would grow over its cap."""

    error_code = "storage_quota_exceeded"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""


class RequestTooLargeError(RequestError):
    """The body is larger than the server reads."""


class HeadTooLargeError(RequestError):
    """The request's line and headers are more than the server reads."""


class SettingsError(PensieveError):
    """A flag, a variable or the configuration is wrong."""

    exit_code = 78


class UsageError(PensieveError):
    """The command line does not say what is wanted."""

    exit_code = 2


class MachineError(PensieveError):
    """This machine cannot do it."""


class UnsupportedPlatformError(MachineError):
    """No Apple silicon here, and no other device was asked for."""


class PortInUseError(MachineError):
    """Another program listens where the server should."""

    exit_code = 69


class ServerUnavailableError(MachineError):
    """No pensieve server answers."""

    exit_code = 69


class NoServerError(ServerUnavailableError):
    """Nobody listens at the server's address."""

    def __init__(self, base_url: str) -> None:
        super().__init__(
            f"No pensieve server answers at {base_url}.", hint="Start it:\n  pensieve start"
        )


class ForeignServerError(ServerUnavailableError):
    """Something answers at the server's address, and nothing shows that it is the user's own server."""

    def __init__(self, base_url: str, *, hint: str) -> None:
        super().__init__(
            f"What answers at {base_url} is not known to be your pensieve server, so it gets neither"
            " your key nor what you ask.",
            hint=hint,
        )


class ProgramMissingError(MachineError):
    """Another program that is to be run is not installed."""

    exit_code = 69


class InstallationError(MachineError):
    """A Python package of pensieve's is missing, or another one stands in its place."""


class DiskFullError(MachineError):
    """Not enough room for what is to be written."""

    exit_code = 73


class StartFailedError(MachineError):
    """The background server ended, or its engine failed, before it could answer. exit_code: the server's, where that says why."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ProgramReplacedError(MachineError):
    """The program was removed from the disk while the server ran from it, as `brew upgrade` does."""

    exit_code = 75

    def __init__(self) -> None:
        super().__init__(
            "pensieve was replaced or removed while the server ran from it, so the server has ended.",
            hint="As a Homebrew service it comes back by itself. Otherwise start the new one:\n  pensieve start",
        )


class StopFailedError(MachineError):
    """The server did not end in time."""


class NotWritableError(MachineError):
    """A folder or file of pensieve's own cannot be made, or must not be used as it is."""

    exit_code = 73


class ModelError(PensieveError):
    """The model's fault."""


class ModelUnavailableError(ModelError):
    """The model is not on this machine and cannot be fetched now."""

    exit_code = 69


class ModelDamagedError(ModelError):
    """The model's files are incomplete, altered, or not of a kind that pensieve loads."""

    exit_code = 65


class ModelUnsupportedError(ModelError):
    """The model is of a kind that pensieve, or the mlx-lm in it, does not load. Fetching it again does not help."""

    exit_code = 65


class EngineError(PensieveError):
    """The engine's fault."""


class EngineBusyError(EngineError):
    """No room for one more generation, or the model is not loaded yet. Trying again helps."""

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GrammarError(EngineError):
    """An answer cannot be held to this grammar: it does not compile, or costs too much. A looser one may do."""


class WorkerDiedError(EngineBusyError):
    """The engine worker ended in the middle of a generation. It is started again; trying again helps."""


class LethalRequestError(EngineError):
    """The engine worker ended again and again on this request. Sending it again does not help."""


class EngineFailedError(EngineError):
    """The engine cannot run at all: the model does not load, or the worker dies at every start."""
