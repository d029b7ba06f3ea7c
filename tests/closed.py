"""Folders and files without read permission, for tests that may run as root, whom no permission holds back."""

import builtins
from pathlib import Path


def close(monkeypatch, path: Path) -> None:
    """From now on `path` can neither be listed nor opened, as after `chmod 0`."""
    listing, opening = Path.iterdir, builtins.open

    def listed(self):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return listing(self)

    def opened(file, *rest, **more):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return opening(file, *rest, **more)

    monkeypatch.setattr(Path, "iterdir", listed)
    monkeypatch.setattr(builtins, "open", opened)
