"""Files appear whole or not at all; caches lie where the user wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfem_dist.files import cache_folder, file_sha256, whole_file, write_whole


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    with whole_file(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    with pytest.raises(TypeError):
        write_whole(path, 2)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # nothing was written
    assert path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_the_digest_is_that_of_the_content(tmp_path):
    write_whole(tmp_path / "a", b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_every_cache_respects_xdg_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("models") == tmp_path / "spfem" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("models") == Path.home() / ".cache" / "spfem" / "models"
