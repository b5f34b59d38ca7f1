"""Access the Hugging Face Hub: a repository's files at a commit, and their bytes from an offset.

All requests to the Hub go through here. huggingface_hub provides addresses, tokens, proxies and
errors, but not `hf_hub_download`: since 2.x that writes to a name of its own in each process and
deletes it on failure, so a large file would start over after every interruption. Knows no folders
and does not retry: `HubInterruptedError` marks errors after which retrying helps.
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
from pensieve.models.folder.architecture_support import MLX_FORMAT, check_files, check_task
from pensieve.models.folder.snapshot import ModelFile, Snapshot

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

# The most that the client receives at once.
CHUNK_BYTES = 1 << 16
LISTING_TIMEOUT_S = 120

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


class HubInterruptedError(ModelUnavailableError):
    """The Hub was unreachable or stopped in the middle. A retry may help, after the wait that
    the Hub requests.
    """

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RevisionNotFoundError(ModelUnavailableError):
    """The repository exists, but this revision or file of it does not, or no longer."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file's bytes from `start`."""

    start: int  # 0 if the server ignored the requested range
    chunks: Iterator[bytes]


class Hub:
    """The Hub at `endpoint`; None: at HF_ENDPOINT, or huggingface.co."""

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi, constants

        # Telemetry fetches a list of coding agents from the Hub to detect which one runs this
        # process. The flag is read from the environment at import, which is not ours to change.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        self._api = HfApi(endpoint=endpoint, library_name="pensieve", library_version=__version__)

    @property
    def endpoint(self) -> str:
        return self._api.endpoint

    def snapshot(self, repo: str, revision: str | None) -> Snapshot:
        """Return the model files of `repo` at `revision` (None: its main branch), resolved to a
        commit.

        Raises `ModelUnavailableError`; `ModelUnsupportedError` if the file names show another kind
        of model.
        """
        listing = self._listing(repo, revision)
        check_task(repo, listing.task)
        check_files(repo, listing.names)
        if not any(file.name.endswith(".safetensors") for file in listing.model_files):
            raise ModelUnsupportedError(
                f"{repo} has no model*.safetensors: it is not an MLX model.", hint=MLX_FORMAT
            )
        return Snapshot(repo=repo, revision=listing.commit, files=listing.model_files)

    def _listing(self, repo: str, revision: str | None) -> Listing:
        suffix = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.endpoint}/api/models/{repo}{suffix}?blobs=true"
        with (
            self._translated(repo),
            exchange(url, self._headers(), self.endpoint) as response,
        ):
            body = read_whole(paced(response.iter_raw(), LISTING_TIMEOUT_S), MAX_BYTES)
        try:
            return read_listing(body)
        except ValueError as error:
            cause = f"the server there is not a Hub ({error})"
            raise self._unavailable(repo, cause) from error

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(library_name="pensieve", library_version=__version__)

    @contextmanager
    def open(self, snapshot: Snapshot, file: ModelFile, offset: int) -> Generator[Transfer]:
        """Yield the bytes of `file` from `offset`. Raises `ModelUnavailableError`, also while
        reading.
        """
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
        """Yield `chunks` up to the file's size; raise if there are more or fewer bytes."""
        position = start
        for chunk in chunks:
            position += len(chunk)
            if position > file.size:
                break
            yield chunk
        if position != file.size:
            cause = f"{file.name} has {file.size} bytes, but {position} arrived"
            raise self._interrupted(snapshot.repo, cause)

    def _check_length(
        self, response: "httpx2.Response", snapshot: Snapshot, file: ModelFile, start: int
    ) -> None:
        """Refuse login pages and proxies' notices, which must not overwrite received bytes."""
        length = response.headers.get("content-length", "")
        begins = response.headers.get("content-range", f"bytes {start}-").startswith(
            f"bytes {start}-"
        )
        if begins and length in {"", str(file.size - start)}:
            return
        kind = response.headers.get("content-type", "unknown type")[:60]
        raise self._interrupted(
            snapshot.repo,
            f"{response.url.host} sent {length[:20]} bytes ({kind}) for {file.name} instead of"
            f" {file.size - start}; a proxy or a login page may answer in its place",
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
                    f"{repo} can be fetched only after its terms are accepted.",
                    hint=f"Accept them at {self.endpoint}/{repo} and set HF_TOKEN to a token of"
                    " your account.",
                ) from error
            case RepositoryNotFoundError():
                raise ModelUnavailableError(
                    f"The Hub at {self.endpoint} has no model {repo}, or it is a private one.",
                    hint="Check the spelling. For a private model set HF_TOKEN to a token that may"
                    " read it.",
                ) from error
            case HfHubHTTPError():
                self._raise_for_status(error, repo)
            case _:
                raise self._interrupted(repo, _first_line(error)) from error

    def _raise_for_status(self, error: "HfHubHTTPError", repo: str) -> NoReturn:
        status = error.response.status_code
        if status == 404:
            raise RevisionNotFoundError(
                f"{repo} is on the Hub, but not with this revision or file:"
                f" {error.response.url.path}",
                hint="Check the revision after the @ in the model's name, or start again to fetch"
                " the newest one.",
            ) from error
        if status in {408, 429} or status >= 500:
            retry_after = error.response.headers.get("retry-after", "")
            cause = "it limits our requests (429)" if status == 429 else f"it answers {status}"
            delay_s = float(retry_after) if retry_after.isdecimal() else 0
            raise self._interrupted(repo, cause, delay_s) from error
        cause = (
            f"it refuses the token ({status}), see HF_TOKEN"
            if status in {401, 403}
            else f"it answers {status}"
        )
        raise self._unavailable(repo, cause) from error

    def _interrupted(self, repo: str, cause: str, retry_after_s: float = 0) -> HubInterruptedError:
        error = self._unavailable(repo, cause)
        return HubInterruptedError(error.message, hint=error.hint, retry_after_s=retry_after_s)

    def _unavailable(self, repo: str, cause: str) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"{repo} is not on this machine, and cannot be fetched from the Hub at"
            f" {self.endpoint}: {cause}.",
            hint="Check the network, or set HF_ENDPOINT to a mirror of the Hub; fetched files are"
            " reused.\nStart a small model that needs no Hub:\n"
            "  pensieve start --model smollm2-135m",
        )


def _first_line(error: Exception) -> str:
    line = _ERRNO.sub("", str(error).partition("\n")[0]).rstrip(". ")
    return line or type(error).__name__
