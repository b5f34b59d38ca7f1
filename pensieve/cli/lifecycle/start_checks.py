"""What a server needs before it starts: keys, where others reach it, and a good certificate."""

from pensieve.credentials.certificate import ServerCertificate, server_certificate
from pensieve.credentials.named_keys import read_keys
from pensieve.settings.resolve import Settings, is_loopback, require_own_key


def check_access(settings: Settings) -> None:
    """Raises `SettingsError`, and `StorageError` for damaged named keys."""
    has_named_keys = not is_loopback(settings.host) and bool(read_keys(settings.paths.keys_file))
    require_own_key(settings, has_named_keys=has_named_keys)
    certificate_of(settings)


def certificate_of(settings: Settings) -> ServerCertificate | None:
    """Raises `SettingsError`."""
    return server_certificate(settings.tls_certificate, settings.tls_key)
