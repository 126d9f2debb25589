"""The keys by which manager and agents trust each other: a certificate, and a token per pilot."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import secrets
import ssl
from pathlib import Path

from dosna.errors import StorageError
from dosna.registry import needing

__all__ = ["Keys"]


class Keys:
    """The keys of one state, in a folder beside it that only this user can read.

    They are kept, so that agents trust a manager that was started again.

    Parameters
    ----------
    folder : Path
        The folder of the keys.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "manager.pem"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._file.exists():
                _write(self._file, _certificate())
            content = self._file.read_bytes()
        except OSError as error:
            raise StorageError(
                f"the keys of pilots cannot be stored in {folder}: {error.strerror}"
            ) from error
        key, begin, certificate = content.decode().partition("-----BEGIN CERTIFICATE-----")
        self.certificate = begin + certificate
        self._secret = hashlib.sha256(key.encode()).digest()

    def context(self) -> ssl.SSLContext:
        """Return the context of a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._file)
        return context

    def token(self, pilot: str) -> str:
        """Return the token of the agents of a pilot."""
        digest = hmac.digest(self._secret, pilot.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode()

    def is_token(self, pilot: str, shown: object) -> bool:
        """Return True if an agent shows the token of its pilot."""
        return isinstance(shown, str) and hmac.compare_digest(
            shown.encode(), self.token(pilot).encode()
        )


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(new, path)


def _certificate() -> bytes:
    """Return a new key with its own certificate, as PEM."""
    with needing("pilots need", "pilot"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dosna.pilot")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
