"""The one door to the Hugging Face Hub: a repository's files at a commit, and their bytes from an offset.

Uses huggingface_hub for addresses, tokens, proxies and errors, but not its `hf_hub_download`: since 2.x that writes to a
name of its own in each process and throws it away on failure, so a large file would start over after every cut.
Knows nothing of folders and tries nothing again: `HubInterruptedError` says where trying again helps.
"""

# pyright: basic

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from pensieve import __version__
from pensieve.errors import ModelUnavailableError, ModelUnsupportedError
from pensieve.models.fetching.hub_exchange import (
    BadAnswerError,
    SlowAnswerError,
    exchange,
    paced,
    read_whole,
)
from pensieve.models.fetching.hub_listing import MAX_BYTES, Listing, read_listing
from pensieve.models.folder.architecture_support import MLX_FORM, check_files, check_task
from pensieve.models.folder.snapshot import ModelFile, Snapshot

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

# The client receives no more at once.
CHUNK_BYTES = 1 << 16
LISTING_S = 120

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


class HubInterruptedError(ModelUnavailableError):
    """The Hub could not be reached, or stopped in the middle. Trying again may help; `retry_after_s` is its own wish."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RevisionNotFoundError(ModelUnavailableError):
    """The repository is there, this revision or file of it is not (any more)."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file's bytes from `start` on. A server that ignores the range asked for starts at 0."""

    start: int
    chunks: Iterator[bytes]


class Hub:
    """A Hub at `endpoint`; None: where HF_ENDPOINT says, or huggingface.co."""

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi, constants

        # Its telemetry asks the Hub's list of coding agents which of them runs this process. It is read from the
        # environment at import; the environment is not ours to change.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        self._api = HfApi(endpoint=endpoint, library_name="pensieve", library_version=__version__)

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return self._api.endpoint

    def snapshot(self, repo: str, revision: str | None) -> Snapshot:
        """The files of `repo` that a model is made of, at `revision` (None: its main branch) resolved to a commit.

        Raises `ModelUnavailableError`; `ModelUnsupportedError` where the files' names tell of another kind of model.
        """
        listing = self._listing(repo, revision)
        check_task(repo, listing.task)
        check_files(repo, listing.names)
        if not any(file.name.endswith(".safetensors") for file in listing.wanted):
            raise ModelUnsupportedError(
                f"{repo} has no model*.safetensors: it is not an MLX model.", hint=MLX_FORM
            )
        return Snapshot(repo=repo, revision=listing.commit, files=listing.wanted)

    def _listing(self, repo: str, revision: str | None) -> Listing:
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.endpoint}/api/models/{repo}{at}?blobs=true"
        with (
            self._translated(repo),
            exchange(url, self._headers(), self.endpoint) as response,
        ):
            body = read_whole(paced(response.iter_raw(), LISTING_S), MAX_BYTES)
        try:
            return read_listing(body)
        except ValueError as error:
            cause = f"what answers there is not a Hub ({error})"
            raise self._unavailable(repo, cause) from error

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(library_name="pensieve", library_version=__version__)

    @contextmanager
    def open(self, snapshot: Snapshot, file: ModelFile, offset: int) -> Generator[Transfer]:
        """The bytes of `file` from `offset`. Raises `ModelUnavailableError`, also while they are read."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(
            snapshot.repo, file.name, revision=snapshot.revision, endpoint=self.endpoint
        )
        headers = self._headers() | ({"range": f"bytes={offset}-"} if offset else {})
        with (
            self._translated(snapshot.repo),
            exchange(url, headers, self.endpoint) as response,
        ):
            start = offset if response.status_code == 206 else 0
            self._check_length(response, snapshot, file, start)
            chunks = paced(response.iter_raw())
            yield Transfer(start, self._exactly(chunks, snapshot, file, start))

    def _exactly(
        self, chunks: Iterator[bytes], snapshot: Snapshot, file: ModelFile, start: int
    ) -> Iterator[bytes]:
        """`chunks` as long as they fit into the file; an error where there are more, or too few."""
        position = start
        for chunk in chunks:
            position += len(chunk)
            if position > file.size:
                break
            yield chunk
        if position != file.size:
            cause = f"{file.name} is {file.size} bytes long, and {position} came"
            raise self._interrupted(snapshot.repo, cause)

    def _check_length(
        self, response: "httpx2.Response", snapshot: Snapshot, file: ModelFile, start: int
    ) -> None:
        """A login page or a proxy's notice must not overwrite what is already here."""
        length = response.headers.get("content-length", "")
        begins = response.headers.get("content-range", f"bytes {start}-").startswith(
            f"bytes {start}-"
        )
        if begins and length in {"", str(file.size - start)}:
            return
        kind = response.headers.get("content-type", "unknown type")[:60]
        raise self._interrupted(
            snapshot.repo,
            f"{response.url.host} sent {length[:20]} bytes ({kind}) for {file.name} where {file.size - start} were due; "
            "a proxy or a login page may stand in between",
        )

    @contextmanager
    def _translated(self, repo: str) -> Generator[None]:
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise self._unavailable(repo, "HF_HUB_OFFLINE is set, so it is not asked") from error
        except BadAnswerError as error:
            raise self._unavailable(repo, str(error)) from error
        except SlowAnswerError as error:
            raise self._interrupted(repo, str(error)) from error
        except httpx2.HTTPError as error:
            self._raise_for(error, repo)
        except httpx2.InvalidURL as error:  # a wrong HF_ENDPOINT
            raise self._unavailable(repo, _first_line(error)) from error

    def _raise_for(self, error: "httpx2.HTTPError", repo: str) -> NoReturn:
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        match error:
            case GatedRepoError():
                raise ModelUnavailableError(
                    f"{repo} asks for its terms to be accepted before it can be fetched.",
                    hint=f"Accept them at {self.endpoint}/{repo} and set HF_TOKEN to a token of your account.",
                ) from error
            case RepositoryNotFoundError():
                raise ModelUnavailableError(
                    f"The Hub at {self.endpoint} has no model {repo}, or it is a private one.",
                    hint="Check the spelling. For a private model set HF_TOKEN to a token that may read it.",
                ) from error
            case HfHubHTTPError():
                self._raise_for_status(error, repo)
            case _:
                raise self._interrupted(repo, _first_line(error)) from error

    def _raise_for_status(self, error: "HfHubHTTPError", repo: str) -> NoReturn:
        status = error.response.status_code
        if status == 404:
            raise RevisionNotFoundError(
                f"{repo} is on the Hub, but not with this revision or file: {error.response.url.path}",
                hint="Check what follows the @ in the model's name, or start again to take the newest revision.",
            ) from error
        if status in {408, 429} or status >= 500:
            wish = error.response.headers.get("retry-after", "")
            cause = (
                "it says that we ask too often (429)" if status == 429 else f"it answers {status}"
            )
            raise self._interrupted(repo, cause, float(wish) if wish.isdecimal() else 0) from error
        cause = (
            f"it refuses the token ({status}), see HF_TOKEN"
            if status in {401, 403}
            else f"it answers {status}"
        )
        raise self._unavailable(repo, cause) from error

    def _interrupted(self, repo: str, cause: str, retry_after_s: float = 0) -> HubInterruptedError:
        told = self._unavailable(repo, cause)
        return HubInterruptedError(told.message, hint=told.hint, retry_after_s=retry_after_s)

    def _unavailable(self, repo: str, cause: str) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"{repo} is not on this machine, and the Hub at {self.endpoint} does not give it: {cause}.",
            hint="Check the network, or set HF_ENDPOINT to a mirror of the Hub; what is here already is kept.\n"
            "A small model that needs no Hub: pensieve start --model smollm2-135m",
        )


def _first_line(error: Exception) -> str:
    line = _ERRNO.sub("", str(error).partition("\n")[0]).rstrip(". ")
    return line or type(error).__name__
