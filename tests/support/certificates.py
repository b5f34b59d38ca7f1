"""An authority of its own, and certificates that it signs, made by openssl for each test run."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Issued:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, *names: str, extensions: str = "", name: str = "server") -> Issued:
        """Sign a certificate for `names`, such as `DNS:localhost` and `IP:127.0.0.1`."""
        at = {kind: self.folder / f"{name}-{kind}" for kind in ("key", "request", "settings")}
        certificate = self.folder / f"{name}.pem"
        alternatives = f"subjectAltName={','.join(names)}\n" if names else ""
        at["settings"].write_text(f"basicConstraints=CA:FALSE\n{alternatives}{extensions}")
        subject = ("-subj", "/CN=pensieve test", "-keyout", at["key"], "-out", at["request"])
        openssl("req", "-new", *KEY, *subject)
        openssl(
            *("x509", "-req", "-in", at["request"], "-out", certificate, "-days", "30"),
            *("-CA", self.certificate, "-CAkey", self.folder / "ca-key", "-CAcreateserial"),
            *("-extfile", at["settings"]),
        )
        return Issued(certificate, at["key"])


def authority(folder: Path) -> Authority:
    made = Authority(folder)
    self_signed(folder / "ca-key", made.certificate, "basicConstraints=critical,CA:TRUE")
    return made


def self_signed(key: Path, certificate: Path, *extensions: str) -> Issued:
    added = [part for extension in extensions for part in ("-addext", extension)]
    to = ("-keyout", key, "-out", certificate, "-days", "30", "-subj", "/CN=pensieve test CA")
    openssl("req", "-x509", *KEY, *to, *added)
    return Issued(certificate, key)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
