"""The server's certificate: what is refused, in a sentence, and what its clients then trust."""

import ssl
import time
from pathlib import Path

import pytest

from pensieve.credentials.certificate import server_certificate
from pensieve.credentials.trust import Trust, authority_file
from pensieve.errors import SettingsError
from tests.support.certificates import Authority, Issued, authority, openssl, self_signed

YEAR_S = 365 * 24 * 3600


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(signer: Authority) -> Issued:
    return signer.issue("DNS:studio.local", "DNS:*.example", "IP:192.168.1.5")


def refusal(certificate: object, key: object, now: float | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        server_certificate(str(certificate), str(key), lambda: now or time.time())
    assert refused.value.exit_code == 78
    assert "PRIVATE" not in str(refused.value)
    assert "pensieve config" in (refused.value.hint or "")
    return refused.value.message


def test_names_of_a_good_certificate_are_those_it_is_valid_for(issued: Issued) -> None:
    found = server_certificate(str(issued.certificate), str(issued.key))
    assert found is not None
    assert found.names == ("studio.local", "192.168.1.5")
    assert 29 < (found.valid_until - time.time()) / (24 * 3600) <= 30
    assert "PRIVATE" not in found.pem


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        (["DNS:a.example", "DNS:localhost"], "127.0.0.1", "localhost"),
        (["DNS:a.example", "IP:127.0.0.1"], "127.0.0.1", "127.0.0.1"),
        (["DNS:A.example"], "127.0.0.1", "a.example"),
        (["DNS:b.example", "IP:10.0.0.5"], "10.0.0.5", "10.0.0.5"),
        (["DNS:*.example"], "127.0.0.1", "127.0.0.1"),
    ],
)
def test_clients_are_sent_to_a_name_of_the_certificate(
    signer: Authority, names: list[str], host: str, expected: str
) -> None:
    made = signer.issue(*names, name="named")
    found = server_certificate(str(made.certificate), str(made.key))
    assert found is not None
    assert found.name_for(host) == expected


def test_without_files_there_is_no_certificate() -> None:
    assert server_certificate("", "") is None


def test_one_file_without_the_other_is_refused() -> None:
    assert refusal("", "key.pem") == "tls_key is set and tls_certificate is not; https needs both."
    assert refusal("c.pem", "") == "tls_certificate is set and tls_key is not; https needs both."


def test_missing_and_unreadable_files_are_refused(issued: Issued, tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    assert refusal(missing, issued.key) == (
        f"tls_certificate: {missing} cannot be read: No such file or directory."
    )
    assert refusal(issued.certificate, tmp_path) == (
        f"tls_key: {tmp_path} cannot be read: Is a directory."
    )


def test_expired_and_future_certificates_are_refused(issued: Issued) -> None:
    files = issued.certificate, issued.key
    assert f"{issued.certificate} has expired (" in refusal(*files, now=time.time() + YEAR_S)
    assert "is not valid yet (not before " in refusal(*files, now=time.time() - YEAR_S)


def test_key_of_another_certificate_is_refused(signer: Authority, issued: Issued) -> None:
    other = signer.issue("DNS:other", name="other")
    assert refusal(issued.certificate, other.key) == (
        f"{other.key} is not the key of the certificate {issued.certificate}."
    )


def test_key_with_a_password_is_refused_without_asking_for_it(
    issued: Issued, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    openssl("pkey", "-in", issued.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    assert refusal(issued.certificate, locked) == (
        f"{locked} is encrypted, and a server has nobody to ask."
    )


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n", "\x00\xff" * 50])
def test_file_that_is_no_certificate_is_refused(issued: Issued, tmp_path: Path, text: str) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text(text, encoding="latin-1")
    assert "is not in PEM, or damaged" in refusal(odd, issued.key)


def test_certificate_without_names_is_refused(signer: Authority) -> None:
    nameless = signer.issue(name="nameless")
    assert "names no host (subjectAltName)" in refusal(nameless.certificate, nameless.key)


def test_certificate_for_another_purpose_is_refused(signer: Authority) -> None:
    mail = signer.issue("DNS:a", extensions="extendedKeyUsage=emailProtection\n", name="mail")
    assert "is refused by clients: " in refusal(mail.certificate, mail.key)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Raises `ssl.SSLCertVerificationError` if the client refuses the server."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for side in sides * 5:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def context_of(issued: Issued) -> ssl.SSLContext:
    found = server_certificate(str(issued.certificate), str(issued.key))
    assert found is not None
    return found.context()


def test_commands_trust_the_very_certificate_of_their_server_and_no_other(
    signer: Authority, issued: Issued
) -> None:
    found = server_certificate(str(issued.certificate), str(issued.key))
    assert found is not None
    trust = Trust(certificate=found.pem)
    handshake(context_of(issued), trust.context(), "127.0.0.1")
    other = signer.issue("DNS:studio.local", name="same-names")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context_of(other), trust.context(), "studio.local")


def test_other_clients_trust_the_authority_for_the_names_it_signed(
    signer: Authority, issued: Issued, tmp_path: Path
) -> None:
    trust = Trust(authority=str(signer.certificate))
    handshake(context_of(issued), trust.context(), "studio.local")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context_of(issued), trust.context(), "other.local")
    own = self_signed(tmp_path / "key", tmp_path / "cert", "subjectAltName=DNS:studio.local")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context_of(own), trust.context(), "studio.local")
    handshake(context_of(own), Trust(authority=str(own.certificate)).context(), "studio.local")


def test_authority_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(SettingsError, match=r"tls_ca: .*none\.pem cannot be used: No such file"):
        Trust(authority=str(tmp_path / "none.pem")).context()
    with pytest.raises(SettingsError, match="holds no certificates"):
        Trust(authority=str(tmp_path / "empty.pem")).context()


def test_other_programs_get_the_authority_or_the_certificate_itself() -> None:
    assert authority_file("/ca.pem", "/own.pem") == "/ca.pem"
    assert authority_file("", "/own.pem") == "/own.pem"
    assert authority_file("system", "/own.pem") == ""
    assert authority_file("", "") == ""
