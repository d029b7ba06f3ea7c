"""A simulated run keeps to the loop's schedule, and what it asks of S3 is what the project's own code asks."""

from collections import Counter
from io import StringIO

import numpy as np
import pytest
import simpy
from faulty_s3 import FaultyS3
from moto_s3 import moto_s3
from rich.console import Console

from spfem_dist.config import Checkpoint, Data, Run, Tracking
from spfem_dist.job_settings import JobSettings
from spfem_dist.planning import limits, show_simulation
from spfem_dist.planning.constants import Constants, JobConstants, Services
from spfem_dist.planning.feeding import Feeding
from spfem_dist.planning.imagined_s3 import Request, traffic
from spfem_dist.planning.predict import Shape, predict
from spfem_dist.planning.simulate import Case, simulate
from spfem_dist.planning.storms import Allowance, ImaginedStorage, together
from spfem_dist.shard_format import GroupEntry, ShardEntry, ShardIndex, shards_digest
from spfem_dist.shares import share_of
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.order import Order
from spfem_dist.training.manifest import CheckpointStore, checkpoint_name, fetched

SHAPE = Shape(1_000_000, 0, 1e6, 1e9, 2, 1000, 10**9, 2 * 10**9)


class OneJob(Run):
    """A run of one job."""

    j: JobSettings = JobSettings(steps=100, global_batch=64)


def case(
    workers: int = 8,
    spread: tuple[float, ...] = (),
    services: Services | None = None,
    every_steps: int = 10,
    **changes,
) -> Case:
    job = JobConstants(fixed_s=0.1, sample_s=0.01, start_s=20, save_s=0.05, spread=list(spread))
    constants = Constants(name="m", kind="measured", bandwidth=1e9, latency_s=1e-4, storage_write=1e8, jobs={"j": job})
    constants = constants.model_copy(update={"services": services or Services()})
    run = OneJob(checkpoint=Checkpoint(every_steps=every_steps), tracking=Tracking(uri="", log_every_steps=5))
    values = {"run": run, "name": "j", "shape": SHAPE, "constants": constants, "workers": workers} | changes
    return Case(**({"per_node": 4, "global_batch": 8 * workers} | values))


def index_of(shards: int, groups: int) -> ShardIndex:
    recording = {"name": "neutral-1-1", "emotion": "neutral", "level": 1, "take": 1, "frames": 10}
    entries = [
        ShardEntry(
            name=f"shard-{s:06d}.tar",
            bytes=1_000_000,
            sha256=f"{s:064x}",
            groups=[
                GroupEntry(key=f"S_{g}", speaker="S", sentence=f"{g}", offset=0, bytes=1024, recordings=[recording])
                for g in range(groups)
            ],
        )
        for s in range(shards)
    ]
    facts = {"corpus": "t", "fps": 25, "size": 64, "speech_features": "logmel", "feature_dim": 160, "landmarks": "none"}
    return ShardIndex(**facts, digest=shards_digest(entries), shards=entries)


def test_without_hiccups_losses_or_shards_a_run_is_what_the_plan_says():
    done = simulate(case(), hours=10, lost=(), steps=100)
    planned = predict(case().constants, "j", SHAPE, case().run.zero, 8, 64, 6400, 4, every_steps=10)
    assert (done.steps, done.samples, done.checkpoints) == (100, 6400, 10)
    assert done.step_s == pytest.approx(planned.step_s)
    saved = 10 * 0.05 + done.uploads[-1].seconds
    assert 3600 * done.hours - done.start_s == pytest.approx(100 * planned.step_s + saved, rel=0.02)


def test_every_step_waits_for_the_slowest_of_all_workers():
    spread = tuple(np.linspace(0.5, 1.5, 21))  # of two draws the larger is 7/6 in the mean, of a thousand nearly 1.5

    def slower(workers):
        done = simulate(case(workers, spread, every_steps=4000), hours=10, lost=(), steps=3999)
        return 1 + done.straggling_s / (3999 * 0.18)

    assert slower(1) == pytest.approx(1, abs=0.03)
    assert slower(2) == pytest.approx(7 / 6, abs=0.03)
    assert slower(1024) == pytest.approx(1.5, abs=0.01)


def test_a_lost_host_costs_the_steps_since_the_last_checkpoint_and_the_time_to_come_back():
    plain = simulate(case(), hours=10, lost=(), steps=100)
    at = (plain.start_s + 0.55 * (3600 * plain.hours - plain.start_s)) / 3600
    fixed, elastic = (simulate(case(elastic=e), hours=10, lost=(at,), steps=100) for e in (False, True))
    for done in (fixed, elastic):
        assert (done.steps, done.losses, len(done.restores)) == (100, 1, 1)
        assert 0 < done.repeated_steps <= 15  # since the last one, or the one before where its upload was under way
    assert fixed.outage_s > Services().replace_s
    assert elastic.outage_s < Services().replace_s
    assert elastic.hours < fixed.hours


def test_the_same_seed_gives_the_same_run():
    spread = (0.9, 1.0, 1.3)
    one, two = (simulate(case(16, spread, elastic=True), hours=0.1, lost=(0.05,)) for _ in range(2))
    assert (one.samples, one.upload_s, one.restores) == (two.samples, two.upload_s, two.restores)


def test_what_comes_too_fast_is_refused_and_comes_again_until_patience_ends():
    allowance = Allowance(10.0)
    assert [allowance.take(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert allowance.take(0.5)

    def storm(patience_s):
        services = Services(s3_writes_per_s=20, patience_s=patience_s)
        storage = ImaginedStorage(simpy.Environment(), services, True, 1e9, 1e9, lambda _: 0.0, 0)
        return together(storage, [(n, [[Request("put_object", "x")]]) for n in range(200)])

    patient, hasty = storm(300), storm(0.5)
    assert patient.failed == 0
    assert patient.writes == 200 + patient.refused
    assert patient.seconds > 200 / 20 - 1
    assert hasty.failed > 0


def test_nodes_fetch_the_shards_of_their_own_samples_once():
    order = Order(index_of(40, 5), seed=1)
    sizes, workers, per_node, batch = np.full(40, 1e6), 8, 4, 64
    feeding = Feeding(order, sizes, Data(), Services(), remote=True)
    feeding.waits(0, np.full(12, 0.5), batch, workers, per_node, 0.0)
    wanted = {
        (rank // per_node, order.sample(step * batch + share.first + n).shard)
        for rank in range(workers)
        for step in range(12)
        for share in [share_of(batch, rank, workers)]
        for n in range(share.samples)
    }
    assert feeding.take_requests() == len(wanted)
    assert feeding.fetched_bytes == 1e6 * len(wanted)
    feeding.waits(12, np.full(200, 0.5), batch, workers, per_node, 6.0)
    assert feeding.warm
    assert feeding.waits(212, np.full(5, 0.5), batch, workers, per_node, 99.0).sum() == 0


def test_shards_that_are_not_looked_up_any_more_are_met_as_often(monkeypatch):
    def fetched(looked_up, cache_mb):
        monkeypatch.setattr("spfem_dist.planning.feeding.LOOKED_UP", looked_up)
        order = Order(index_of(400, 5), seed=1)
        feeding = Feeding(order, np.full(400, 1e6), Data(cache_mb=cache_mb), Services(), remote=True)
        for step in range(0, 300, 10):
            feeding.waits(step, np.full(10, 0.5), 64, 8, 4, 0.5 * step)
        return feeding.fetched_bytes / 1e6

    assert fetched(50, 1000) == pytest.approx(fetched(300, 1000), rel=0.15)
    assert fetched(50, 100) == pytest.approx(fetched(300, 100), rel=0.15)
    assert fetched(50, 1000) <= 2 * 400 < fetched(50, 100)  # two nodes, each shard once where the folders hold all


def test_the_imagined_requests_are_those_that_reach_a_server(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    asked = traffic(2, 2, 0, True)
    with moto_s3() as upstream:
        server = FaultyS3(upstream).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        open_filesystem("s3://bucket")[0].mkdir("bucket")
        store = CheckpointStore("s3://bucket/run")
        for rank in (0, 1):
            for network in range(2):
                place = tmp_path / str(rank) / f"network{network}"
                place.mkdir(parents=True)
                (place / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(b"0")
                if rank == 0:
                    (place / "mp_rank_00_model_states.pt").write_bytes(b"0")
            if rank == 0:
                (tmp_path / "0" / "state.json").write_text("{}")
                (tmp_path / "0" / "history.jsonl").write_text("")

        def counted(call):
            server.requests.clear()
            call()
            return Counter(server.requests)

        def expected(rounds):
            verbs = {"put_object": "PUT", "list_objects_v2": "GET", "get_object": "GET", "head_object": "HEAD"}
            return Counter(verbs.get(r.method, "POST") for together in rounds for r in together)

        name = checkpoint_name(0)
        for rank in (0, 1):
            put = counted(lambda rank=rank: store.put(tmp_path / str(rank), name, rank, 2, {}))
            assert put == expected(asked.put[rank])
        assert counted(lambda: store.files(name)) == expected(asked.look)

        def read():
            with fetched(f"s3://bucket/run/{name}", ["*"], {0, 1}):
                pass

        assert counted(read) == expected(asked.whole)
        assert counted(lambda: store.remove(name)) == expected(asked.retire)
        server.stop()


def test_what_breaks_first_is_said_in_words():
    tight = case(64, services=Services(s3_writes_per_s=100, mlflow_call_s=0.001))
    outcomes = dict(limits.probed(tight, 128, 20))
    found = limits.reached(outcomes)
    assert sorted(outcomes) == [64, 128]
    refused = next(row for row in found if row.limit.name.startswith("S3 refuses"))
    assert refused.breaks_at == found[0].breaks_at == 128
    said = show_simulation.words(found, outcomes)
    assert said[0].startswith(f"first, at 128 workers: {found[0].limit.name}")
    assert any("S3 refuses requests" in sentence for sentence in said)
    calm = {8: simulate(case(), hours=1, lost=(), steps=30)}
    assert show_simulation.words(limits.reached(calm), calm) == ["nothing breaks up to 8 workers"]


def test_a_simulated_run_is_shown_beside_the_plan_and_drawn(tmp_path):
    done = simulate(case(16), hours=0.03, lost=(0.02,))
    planned = predict(case().constants, "j", SHAPE, case().run.zero, 16, 128, 6400, 4, every_steps=10)
    console = Console(file=StringIO(), width=80)
    found = limits.reached({16: done})
    show_simulation.show(console, done, planned)
    show_simulation.show_limits(console, found, {16: done})
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("samples/s over the whole time" in line for line in lines)
    show_simulation.draw(tmp_path / "scale.svg", done, found)
    assert "requests/s at S3" in (tmp_path / "scale.svg").read_text()
