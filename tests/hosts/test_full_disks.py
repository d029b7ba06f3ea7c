"""Disks that are full: what can wait for room waits, what cannot says which disk it is."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
import torch

from spfem_dist import storage
from spfem_dist.config import Storage
from spfem_dist.errors import UnreachableStorage
from spfem_dist.storage import is_full, set_retry_policy, wait_for_room


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_torchs_words_for_a_full_disk_are_known(small_disk):
    with pytest.raises(RuntimeError) as caught:
        torch.save({"weights": torch.zeros(2_000_000)}, small_disk / "file.pt")
    assert is_full(caught.value)
    (small_disk / "file.pt").unlink()
    with pytest.raises(OSError, match="space") as plain, open(small_disk / "file", "wb") as file:
        file.write(bytes(8_000_000))
    assert is_full(plain.value)
    assert not is_full(RuntimeError("shapes differ"))


def test_room_on_a_full_disk_is_waited_for(small_disk, monkeypatch, caplog):
    monkeypatch.setattr(storage, "_policy", Storage(patience_s=10))
    (small_disk / "old").write_bytes(bytes(2_500_000))
    threading.Timer(0.5, (small_disk / "old").unlink).start()
    wait_for_room(small_disk, 2_000_000, "a checkpoint")
    assert "waiting for room" in caplog.text
    set_retry_policy(Storage(patience_s=0.2))
    with pytest.raises(
        UnreachableStorage, match=r"a checkpoint needs 9 MB in .*disk, and 3 MB are free there: free some"
    ):
        wait_for_room(small_disk, 9_000_000, "a checkpoint")
