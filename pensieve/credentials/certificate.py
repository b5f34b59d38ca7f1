"""The certificate of an https server: read and checked before it is used, and named in addresses.

The checks are a handshake in memory, with Python's own TLS: what passes them serves.
"""

import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pensieve.errors import SettingsError

# Of OpenSSL, without a name in Python. The dates are compared here, to say which one is wrong.
NO_CHECK_TIME = 0x200000
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_HANDSHAKE_STEPS = 10
# In the order in which programs on this machine prefer them.
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    file: Path  # with its chain
    key_file: Path
    pem: str  # without its chain
    names: tuple[str, ...]  # for which it is valid, in lower case; without wildcards
    valid_until: float  # Unix seconds

    def name_for(self, host: str) -> str:
        """Return the name under which clients of a server at `host` can verify it."""
        return next(
            (name for name in (host, *_LOCAL_NAMES, *self.names) if name in self.names), host
        )

    def context(self) -> ssl.SSLContext:
        """Return the server's side of its connections."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key_file)
        return context


def server_certificate(
    certificate: str, key: str, clock: Callable[[], float] = time.time
) -> ServerCertificate | None:
    """Return the certificate that the settings name; None if they name none.

    Raises `SettingsError` if it cannot be used.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        given, missing = ("tls_certificate", "tls_key")[:: 1 if certificate else -1]
        raise SettingsError(
            f"{given} is set and {missing} is not; https needs both.",
            hint=f"Set the other one, too:\n  pensieve config set {missing} FILE",
        )
    files = file_of(certificate), file_of(key)
    context = _server_context(*files)
    pem = _PEM.findall(files[0].read_text(encoding="ascii", errors="replace"))[0]
    facts = _verified(context, pem, files[0])
    valid_until = ssl.cert_time_to_seconds(facts["notAfter"])
    if clock() >= valid_until:
        raise _unusable(files[0], f"has expired ({facts['notAfter']})")
    if clock() < ssl.cert_time_to_seconds(facts["notBefore"]):
        raise _unusable(files[0], f"is not valid yet (not before {facts['notBefore']})")
    return ServerCertificate(*files, pem, _names(facts, files[0]), valid_until)


def file_of(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    for name, file in (("tls_certificate", certificate), ("tls_key", key)):
        _require_readable(name, file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password would be asked for on a terminal that a server does not have.
        context.load_cert_chain(certificate, key, password=_no_password)
    except _PasswordNeededError:
        raise _unusable(key, "is encrypted, and a server has nobody to ask") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _unusable(key, f"is not the key of the certificate {certificate}") from error
        raise _unusable(certificate, f"or its key {key} is not in PEM, or damaged") from error
    return context


def _require_readable(name: str, file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise SettingsError(
            f"{name}: {file} cannot be read: {error.strerror}.", hint=_HINT
        ) from error


class _PasswordNeededError(Exception):
    pass


def _no_password() -> str:
    raise _PasswordNeededError


def _verified(server_side: ssl.SSLContext, pem: str, file: Path) -> dict[str, Any]:
    """Return what the certificate says, as a client that trusts it reads it."""
    client_side = pinned_context(pem)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server)
    try:
        for _ in range(_HANDSHAKE_STEPS):
            for side in (client, server):
                _advance(side)
    except ssl.SSLCertVerificationError as error:
        raise _unusable(file, f"is refused by clients: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise _unusable(file, f"cannot be used: {error.reason}") from error
    return client.getpeercert() or {}


def _advance(side: ssl.SSLObject) -> None:
    with suppress(ssl.SSLWantReadError):  # the other side is next
        side.do_handshake()


def pinned_context(pem: str) -> ssl.SSLContext:
    """Return a client's side that trusts this very certificate, whatever its names and dates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    context.load_verify_locations(cadata=pem)
    return context


def _names(facts: dict[str, Any], file: Path) -> tuple[str, ...]:
    named = [name.lower() for kind, name in facts.get("subjectAltName", ()) if kind in _KINDS]
    names = tuple(name for name in named if "*" not in name)
    if not named:
        raise _unusable(file, "names no host (subjectAltName), so every client refuses it")
    return names


_KINDS = {"DNS", "IP Address"}
_HINT = (
    "Set both files, or serve without TLS:\n"
    "  pensieve config set tls_certificate FILE\n  pensieve config set tls_key FILE\n"
    "  pensieve config unset tls_certificate && pensieve config unset tls_key"
)


def _unusable(file: Path, problem: str) -> SettingsError:
    return SettingsError(f"{file} {problem}.", hint=_HINT)
