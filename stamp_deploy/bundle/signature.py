"""Ed25519 signatures of bundles.

The signature covers the bytes of bundle.json, which in turn holds the SHA-256 of every other file. It lies
beside it as ``bundle.json.sig``: the 64 raw bytes of RFC 8032. Keys are PEM files.
"""

from __future__ import annotations

from pathlib import Path

from ..atomic import write_bytes_atomic
from ..errors import BundleError, EngineError, UsageError
from ..system.files import refuse_special

SIGNATURE_SUFFIX = ".sig"
SIGNATURE_FILE = "bundle.json" + SIGNATURE_SUFFIX
SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 64 * 1024


def sign_bundle(bundle: Path, private_key: Path) -> Path:
    """Sign a bundle with a PEM private key and write the signature beside bundle.json; see `sign_file`."""
    return sign_file(bundle / "bundle.json", private_key)


def sign_file(document: Path, private_key: Path) -> Path:
    """Sign the bytes of a file and write the signature beside it, as NAME.sig.

    Raises
    ------
    UsageError
        The key is not an Ed25519 private key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_key_bytes(private_key), password=None)
    except (ValueError, TypeError) as error:
        raise UsageError("this is not an unencrypted PEM private key", path=private_key) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("this is not an Ed25519 private key", path=private_key)
    path = document.with_name(document.name + SIGNATURE_SUFFIX)
    write_bytes_atomic(path, key.sign(document.read_bytes()))
    return path


def check_signature(document: bytes, signature: Path, public_key: Path) -> None:
    """Check the signature over the bytes of bundle.json or another document, before they are parsed.

    Raises
    ------
    BundleError
        The signature is missing or does not fit the key.
    UsageError
        The key is not an Ed25519 public key.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise EngineError("signatures need the package cryptography", remedy="pip install cryptography") from error

    try:
        key = load_pem_public_key(_key_bytes(public_key))
    except ValueError as error:
        raise UsageError("this is not a PEM public key", path=public_key) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("this is not an Ed25519 public key", path=public_key)
    remedy = "ask the bundle's maker for a signed bundle, or use the key it was signed with"
    if signature.is_symlink() or not signature.is_file() or signature.stat().st_size != SIGNATURE_BYTES:
        raise BundleError("a signature is required and there is none", path=signature.parent, remedy=remedy)
    try:
        key.verify(signature.read_bytes(), document)
    except InvalidSignature as error:
        raise BundleError(
            f"the signature does not fit the key {public_key.name}", path=signature.parent, remedy=remedy
        ) from error


def _key_bytes(path: Path) -> bytes:
    refuse_special(path, UsageError)
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"the key cannot be read: {error.strerror}", path=path) from error
