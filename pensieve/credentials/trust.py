"""What a client of an https server believes: one certificate, or whom an authority vouches for."""

import ssl
from dataclasses import dataclass

from pensieve.credentials.certificate import file_of, pinned_context
from pensieve.errors import SettingsError

SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Trust:
    certificate: str = ""  # PEM, of the server of this home
    authority: str = ""  # a file; empty or "system": the system's authorities

    def context(self) -> ssl.SSLContext:
        """Raises `SettingsError`."""
        if self.certificate:
            return pinned_context(self.certificate)
        if self.authority in {"", SYSTEM}:
            return ssl.create_default_context()
        file = file_of(self.authority)
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # an SSLError is one
            problem = "holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(
                f"tls_ca: {file} cannot be used: {problem}.",
                hint="Set the file of the authority that has signed the server's certificate:\n"
                "  pensieve config set tls_ca FILE",
            ) from error


SYSTEM_TRUST = Trust()


def authority_file(tls_ca: str, tls_certificate: str) -> str:
    """Return the file that other programs must be given to trust the server; empty for none.

    A certificate that is its own authority is trusted by itself.
    """
    if tls_ca == SYSTEM:
        return ""
    file = tls_ca or tls_certificate
    return str(file_of(file)) if file else ""
