"""Reading groups: plain WebDataset tars, one ranged read for each, and clear words for everything that can be wrong."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from coded_shards import FEATURES, read_code

from spfem_dist.shard_format import DamagedShard, ShardIndex
from spfem_dist.streaming.decode import decode
from spfem_dist.streaming.reader import ShardReader, TooMuchDamaged
from spfem_dist.streaming.store import MissingShard


def test_a_group_comes_back_as_it_was_written(small):
    reader = ShardReader(str(small.root))
    group, written = reader.read(2, 1), small.groups[5]
    assert group.key == written.key
    assert [r.name for r in group.recordings] == [r.name for r in written.recordings]
    assert group.recordings[1].video == written.recordings[1].video
    assert np.array_equal(group.recordings[1].valid, written.recordings[1].valid)
    assert np.allclose(group.recordings[1].features, written.recordings[1].features)
    assert np.array_equal(group.warp("neutral-1-1", "angry-1-1"), written.warps[("neutral-1-1", "angry-1-1")])


def test_a_read_touches_the_groups_own_bytes_only(copy_of_small):
    broken = copy_of_small()
    path = broken.root / "shard-000000.tar"
    first = ShardIndex.load(broken.root).shards[0].groups[0]
    path.write_bytes(bytes(first.bytes) + path.read_bytes()[first.bytes :])
    reader = ShardReader(str(broken.root))
    assert reader.read(0, 1).key == broken.groups[1].key
    with pytest.raises(DamagedShard):
        reader.read(0, 0)


def test_the_webdataset_library_reads_the_same_tars(small):
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in small.root.glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == [g.key for g in small.groups]
    recording = small.groups[4].recordings[2]
    assert samples[4][f"{recording.name}.mp4"] == recording.video
    assert json.loads(samples[4]["json"])["speaker"] == small.groups[4].speaker
    decoded = next(iter(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()))
    assert decoded["neutral-1-1.features.npy"].shape == (30, FEATURES)


def test_dalis_own_webdataset_reader_reads_and_decodes_the_same_tars(tmp_path):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    from coded_shards import make_group, write_shards
    from nvidia.dali import fn, pipeline_def

    from spfem_dist.emotions import SEVEN

    groups = [make_group("S00", f"{n:03d}", SEVEN[:2], 8 * n, codec="vp9") for n in range(3)]
    root = write_shards(tmp_path, [groups])

    @pipeline_def(batch_size=3, num_threads=1, device_id=None)
    def reading():
        video, speech = fn.readers.webdataset(
            paths=str(root / "shard-000000.tar"),
            ext=["neutral-1-1.webm", "neutral-1-1.flac"],
            missing_component_behavior="error",
        )
        return fn.decoders.video(video, start_frame=4, sequence_length=2), fn.decoders.audio(speech)[0]

    pipeline = reading()
    pipeline.build()
    pictures, sound = pipeline.run()
    for n, group in enumerate(groups):
        shown = np.array(pictures[n])
        assert [read_code(p) for p in shown] == [(8 * n, 4), (8 * n, 5)]
        ours = decode(group.recordings[0].video, [4, 5])
        assert np.abs(shown.astype(int) - ours).mean() < 2.5
        assert np.array(sound[n]).shape[0] == 30 * 640


def test_a_missing_index_says_what_to_do(tmp_path):
    with pytest.raises(MissingShard, match=r"no shard index at .*index\.json: write shards with `spfem prepare"):
        ShardReader(str(tmp_path / "nowhere"))


def test_a_missing_shard_is_named(copy_of_small):
    broken = copy_of_small()
    (broken.root / "shard-000002.tar").unlink()
    with pytest.raises(MissingShard, match=r"shard-000002\.tar is listed .* missing from .*`spfem prepare` again"):
        ShardReader(str(broken.root)).read(2, 0)


def test_a_tar_cut_in_the_middle_is_named_and_loses_only_what_is_cut(copy_of_small):
    broken = copy_of_small()
    path = broken.root / "shard-000001.tar"
    second = ShardIndex.load(broken.root).shards[1].groups[1]
    content = path.read_bytes()
    path.write_bytes(content[: second.offset + second.bytes // 2])
    reader = ShardReader(str(broken.root))
    assert reader.read(1, 0).key == broken.groups[2].key
    with pytest.raises(
        DamagedShard, match=rf"shard-000001\.tar has \d+ bytes, the index says {len(content)}: it is cut"
    ):
        reader.read(1, 1)


def test_an_index_of_other_shards_is_noticed(copy_of_small):
    broken = copy_of_small()
    (broken.root / "shard-000000.tar").write_bytes((broken.root / "shard-000001.tar").read_bytes() + bytes(1 << 16))
    with pytest.raises(DamagedShard, match=r"holds group S00_002 where the index says S00_000|damaged tar header"):
        ShardReader(str(broken.root)).read(0, 0)


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil.json", "S00_000/../evil.json"])
def test_a_tar_member_that_leaves_its_folder_is_refused_and_writes_nothing(copy_of_small, tmp_path, name):
    broken = copy_of_small()
    path = broken.root / "shard-000000.tar"
    info = tarfile.TarInfo(name)
    info.size = 2
    header = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(header + path.read_bytes()[512:])
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(DamagedShard, match="refused"):
        ShardReader(str(broken.root)).read(0, 0)
    assert sorted(p for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../shard-000000.tar", "/etc/passwd", "a/b.tar"])
def test_a_shard_name_that_leaves_the_folder_is_refused(copy_of_small, name):
    broken = copy_of_small()
    path = broken.root / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0]["name"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(DamagedShard, match="not a valid shard index"):
        ShardReader(str(broken.root))


def test_bad_groups_are_counted_once_and_stop_the_run_past_the_share(copy_of_small, caplog):
    broken = copy_of_small()
    reader = ShardReader(str(broken.root), bad_share=0.1)
    for _ in range(3):
        reader.count_bad(0, 0, DamagedShard("cut"))
    assert [(b.shard, b.group, b.reason) for b in reader.bad] == [("shard-000000.tar", "S00_000", "cut")]
    assert caplog.text.count("damaged group S00_000") == 1
    with pytest.raises(TooMuchDamaged, match=r"2 of 12 utterance groups .* S00_001 of shard-000000\.tar: cut"):
        reader.count_bad(0, 1, DamagedShard("cut"))
