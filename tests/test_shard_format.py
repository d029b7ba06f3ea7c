"""The shard format keeps what it is given, and refuses bytes that are cut, altered or hostile."""

import io
import tarfile

import numpy as np
import pytest

from spfem_dist.emotions import Emotion
from spfem_dist.records import Recording, UtteranceGroup
from spfem_dist.shard_format import (
    DamagedShard,
    GroupEntry,
    RecordingEntry,
    ShardEntry,
    ShardIndex,
    decode_group,
    encode_group,
    members_of,
    pack_members,
    shards_digest,
)

FRAMES = {"neutral-1-1": 7, "happy-3-1": 5}
MP4 = b"\0\0\0\x20ftypisom" + bytes(700)


def group() -> UtteranceGroup:
    rng = np.random.default_rng(0)
    recordings = [
        Recording(
            name=name,
            emotion=Emotion.parse(name.split("-")[0]),
            level=int(name.split("-")[1]),
            take=1,
            frames=frames,
            video=MP4 + name.encode(),
            speech=b"fLaC" + name.encode(),
            features=rng.normal(size=(frames, 160)).astype(np.float16).astype(np.float32),
            valid=rng.random(frames) > 0.3,
            landmarks=rng.integers(0, 64, (frames, 68, 2)).astype(np.float32),
            truth={"visemes": rng.random((frames, 4)).astype(np.float32), "phase": np.arange(frames, dtype=np.float32)},
        )
        for name, frames in FRAMES.items()
    ]
    pair = ("neutral-1-1", "happy-3-1")
    path = np.array([[0, 1, 2, 3, 4, 5, 6], [0, 1, 1, 2, 3, 4, 4]], np.int32)
    return UtteranceGroup("M003_001", "mead", "M003", "001", 25.0, 64, recordings, {pair: path}, {pair: 1.5})


def tar_of(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    blocks = b""
    for name, content in members:
        info = tarfile.TarInfo(name)
        info.size, info.type = len(content), kind
        blocks += info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)
    return blocks


def test_decoding_gives_back_the_group():
    before = group()
    after = decode_group(members_of(pack_members(encode_group(before))))
    assert (after.key, after.corpus, after.speaker, after.sentence) == ("M003_001", "mead", "M003", "001")
    assert (after.fps, after.size, after.warp_costs) == (25.0, 64, before.warp_costs)
    np.testing.assert_array_equal(
        after.warp("happy-3-1", "neutral-1-1"), before.warps["neutral-1-1", "happy-3-1"][::-1]
    )
    for x, y in zip(before.recordings, after.recordings, strict=True):
        assert (x.name, x.emotion, x.level, x.take, x.frames) == (y.name, y.emotion, y.level, y.take, y.frames)
        assert (x.video, x.speech) == (y.video, y.speech)
        assert y.features.dtype == np.float32
        assert y.valid.dtype == bool
        for name in ("features", "valid", "landmarks"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name))
        assert x.truth.keys() == y.truth.keys()
        np.testing.assert_array_equal(x.truth["visemes"], y.truth["visemes"])


def test_a_group_without_landmarks_truth_or_warps_is_kept_too():
    bare = group()
    bare.warps, bare.warp_costs = {}, {}
    for recording in bare.recordings:
        recording.landmarks, recording.truth = None, {}
    after = decode_group(members_of(pack_members(encode_group(bare))))
    assert after.recordings[0].landmarks is None
    assert after.recordings[0].truth == {}
    assert after.warps == {}


def test_the_same_group_gives_the_same_bytes():
    assert pack_members(encode_group(group())) == pack_members(encode_group(group()))


def test_the_members_are_a_plain_tar_with_the_header_first():
    packed = pack_members(encode_group(group()))
    with tarfile.open(fileobj=io.BytesIO(packed + bytes(1024))) as tar:
        members = tar.getmembers()
    assert members[0].name == "M003_001.json"
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert "M003_001.neutral-1-1+happy-3-1.warp.npy" in {m.name for m in members}


def test_every_cut_of_a_group_is_noticed():
    packed = pack_members(encode_group(group()))
    for length in range(0, len(packed), 256):
        with pytest.raises(DamagedShard):
            decode_group(members_of(packed[:length]))


def test_a_cut_says_which_member_is_cut():
    packed = pack_members(encode_group(group()))
    with pytest.raises(DamagedShard, match=r"warp\.npy.*cut in the middle"):
        members_of(packed[:-512])


def test_an_altered_header_is_noticed():
    packed = bytearray(pack_members(encode_group(group())))
    packed[1024 + 3] ^= 1  # second member's name
    with pytest.raises(DamagedShard, match="damaged tar header"):
        members_of(bytes(packed))


@pytest.mark.parametrize(
    "name", ["../evil.mp4", "/etc/passwd", "M003_001/x.mp4", "M003_001..mp4", "M003_001.a/../../b", "evil", ".x.mp4"]
)
def test_a_member_name_that_leaves_the_folder_is_refused(name):
    with pytest.raises(DamagedShard, match="refused"):
        members_of(tar_of(("M003_001.json", b"{}"), (name, b"x")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE])
def test_only_regular_files_are_accepted(kind):
    with pytest.raises(DamagedShard, match="not a regular file"):
        members_of(tar_of(("M003_001.json", b"{}"), kind=kind))


def test_members_of_another_group_are_refused():
    with pytest.raises(DamagedShard, match="does not belong"):
        members_of(tar_of(("M003_001.json", b"{}"), ("W009_001.happy-3-1.mp4", MP4)))


def test_a_member_twice_is_refused():
    with pytest.raises(DamagedShard, match="twice"):
        members_of(tar_of(("M003_001.json", b"{}"), ("M003_001.json", b"{}")))


def test_pickles_in_arrays_are_refused():
    members = dict(encode_group(group()))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}] * 5, dtype=object), allow_pickle=True)
    members["M003_001.happy-3-1.features.npy"] = pickled.getvalue()
    with pytest.raises(DamagedShard, match=r"happy-3-1\.features\.npy"):
        decode_group(members)


def test_an_array_header_that_claims_too_much_is_refused_before_memory_is_taken():
    members = dict(encode_group(group()))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 160)})
    members["M003_001.happy-3-1.features.npy"] = buffer.getvalue()
    with pytest.raises(DamagedShard, match="not a whole array"):
        decode_group(members)


def test_a_missing_member_is_named():
    members = dict(encode_group(group()))
    del members["M003_001.happy-3-1.flac"]
    with pytest.raises(DamagedShard, match=r"lacks its member M003_001\.happy-3-1\.flac"):
        decode_group(members)


def test_an_unexpected_member_is_named():
    members = {**dict(encode_group(group())), "M003_001.sad-3-1.flac": b"fLaC"}
    with pytest.raises(DamagedShard, match="sad-3-1"):
        decode_group(members)


def test_features_must_have_a_row_for_every_frame():
    wrong = group()
    wrong.recordings[0].features = wrong.recordings[0].features[:-1]
    with pytest.raises(ValueError, match="features has shape"):
        encode_group(wrong)


@pytest.mark.parametrize("path", [[[0, 1, 0], [0, 1, 2]], [[0, 7], [0, 1]], [[-1, 0], [0, 0]]])
def test_a_warp_must_be_monotone_and_inside(path):
    wrong = group()
    wrong.warps["neutral-1-1", "happy-3-1"] = np.array(path, np.int32)
    with pytest.raises(ValueError, match="not a monotone path"):
        encode_group(wrong)


def index() -> ShardIndex:
    entries = [RecordingEntry(name="happy-3-1", emotion=Emotion.HAPPY, level=3, take=1, frames=5)]
    groups = [GroupEntry(key="M003_001", speaker="M003", sentence="001", offset=0, bytes=1024, recordings=entries)]
    shards = [ShardEntry(name="shard-000000.tar", bytes=10240, sha256="0" * 64, groups=groups)]
    return ShardIndex(
        corpus="mead",
        fps=25.0,
        size=64,
        speech_features="logmel",
        feature_dim=160,
        landmarks="none",
        digest=shards_digest(shards),
        shards=shards,
    )


def test_an_index_survives_the_disk(tmp_path):
    index().save(tmp_path)
    assert ShardIndex.load(tmp_path) == index() == ShardIndex.load((tmp_path / "index.json").read_bytes())
    assert [p.name for p in tmp_path.iterdir()] == ["index.json"]


def test_a_missing_index_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="spfem prepare"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"shard-000000.tar"', '"../shard-000000.tar"'),
        ('"offset": 0', '"offset": 10240'),
        ('"bytes": 1024,', '"bytes": 1000,'),
        ('"spfem-shards/1"', '"spfem-shards/9"'),
        ('"happy"', '"hapy"'),
        ("0000000000000000", "0000000000000001"),
        ("}", ""),
    ],
)
def test_an_altered_index_is_refused(tmp_path, old, new):
    text = index().save(tmp_path).read_text()
    assert old in text
    with pytest.raises(DamagedShard, match="index"):
        ShardIndex.load(text.replace(old, new, 1).encode())
