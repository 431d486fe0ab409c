"""`stamp-deploy verify`: is this bundle, result or acceptance record what it was when it was written?"""

from __future__ import annotations

import json
from pathlib import Path

from ..atomic import DONE_MARKER, is_done
from ..bundle import BUNDLE_FILE, load_adapters
from ..bundle.signature import SIGNATURE_SUFFIX, check_signature
from ..errors import DataError, UsageError
from ..hashing import sha256_file

RESULT_FILE = "result.json"
MAX_MARKER_BYTES = 16 << 20


def verify_path(path: Path, public_key: Path | None = None) -> str:
    """Check a bundle, a result folder, or a signed record; returns one sentence, and what a bundle does not know.

    Raises
    ------
    BundleError
        A bundle is not as recorded, or a signature is missing or wrong.
    DataError
        A result is unfinished, or a file of it is missing, added or changed.
    UsageError
        There is nothing here that could be verified.
    """
    if path.is_file():
        return verify_record(path, public_key)
    if (path / BUNDLE_FILE).exists() or (path / BUNDLE_FILE).is_symlink():
        signed = f"signed by {public_key.name}" if public_key else "signature not asked for"
        said = []
        for bundle in load_adapters(path, require_signature=public_key).values():
            count, sha256 = len(bundle.files), bundle.sha256[:12]
            said.append(f"{bundle.name}: {count} files are as recorded; {signed}; bundle {sha256}")
            said += [f"not known: {what}" for what in bundle.lacks]
        return "\n".join(said)
    if (path / RESULT_FILE).exists():
        if public_key is not None:
            raise UsageError("results are not signed", path=path, remedy="leave --require-signature out")
        return verify_result(path)
    raise UsageError("this is neither a bundle nor a result", path=path, remedy="name the folder that holds one")


def verify_result(folder: Path) -> str:
    """Check every file of a result against the SHA-256 in its DONE file (``sha256sum -c DONE`` does the same)."""
    if not is_done(folder):
        raise DataError("the result was never finished", path=folder, remedy="run the slide again")
    recorded = _marker(folder)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() or p.is_symlink()}
    present -= {DONE_MARKER}
    for name in sorted(recorded.keys() - present):
        raise DataError(f"{name!r} is missing", path=folder, remedy="run the slide again")
    for name in sorted(present - recorded.keys()):
        raise DataError(f"{name!r} was added later", path=folder, remedy="remove it, or run the slide again")
    for name, digest in recorded.items():
        path = folder / name
        if path.is_symlink() or sha256_file(path) != digest:
            raise DataError(f"{name!r} has been changed", path=folder, remedy="run the slide again")
    facts = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    bundle = facts.get("bundle", {}).get("sha256", "")
    return f"{folder.name}: {len(recorded)} files are as written; scored with bundle {bundle[:12]}"


def verify_record(path: Path, public_key: Path | None) -> str:
    """Check the signature of an acceptance record."""
    if public_key is None:
        raise UsageError(
            "a single file is verified by its signature", path=path, remedy="name the key with --require-signature"
        )
    check_signature(path.read_bytes(), path.with_name(path.name + SIGNATURE_SUFFIX), public_key)
    return f"{path.name}: the signature fits {public_key.name}"


def _marker(folder: Path) -> dict[str, str]:
    """DONE as {name: sha256}."""
    path = folder / DONE_MARKER
    recorded = {}
    if path.is_symlink() or path.stat().st_size > MAX_MARKER_BYTES:
        raise DataError("the DONE file is not one of ours", path=folder, remedy="run the slide again")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or name.startswith("/") or ".." in name.split("/"):
            raise DataError(
                "the DONE file holds no hashes: the result is of an older version, or was changed",
                path=folder,
                remedy="run the slide again to have hashes recorded",
            )
        recorded[name] = digest
    return recorded
