"""What is on its way to the store arrives, in order and whole, however the store behaves; training never waits."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from spfem_dist.tracking.outbox import Item, Outbox, Refused, now, spooled


class Store:
    """A store that can be away, slow, or refuse names."""

    def __init__(self):
        self.items, self.away, self.refuses, self.calls = [], False, set(), 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.calls += 1
        assert self.gate.wait(600), "the test never opened the gate"
        if self.away:
            raise ConnectionError("http://me:sesame@host is away")
        if any(item.key in self.refuses for item in items):
            raise Refused("bad name")
        self.items += items

    def steps(self):
        return [item.step for item in self.items]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def outbox(store, tmp_path):
    box = Outbox(store, tmp_path / "spool", interval=0.02, longest_wait=0.1)
    yield box
    store.gate.set()
    box.close(timeout=0.1)


def wait_until(true):
    """Other threads get all the time that a busy machine may need."""
    deadline = time.monotonic() + 180
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 180 s"
        time.sleep(0.01)


def point(step, key="train/loss"):
    return Item("metric", key, float(step), now(), step)


def test_items_arrive_in_order_and_leave_no_spool(store, outbox, tmp_path):
    for step in range(1200):
        outbox.put(point(step))
    assert outbox.close() == 0
    assert store.steps() == list(range(1200))
    assert not list((tmp_path / "spool").iterdir())


def test_putting_never_waits_for_a_hanging_store(store, outbox):
    store.gate.clear()
    outbox.put(point(0))
    wait_until(lambda: store.calls)
    for step in range(1, 400):
        outbox.put(point(step))
    assert store.items == [], "the store still hangs, and all was put"
    store.gate.set()
    assert outbox.flush(180)
    assert store.steps() == list(range(400))


def test_what_is_put_while_the_store_is_away_arrives_once_it_is_back(store, outbox):
    store.away = True
    for step in range(50):
        outbox.put(point(step))
    wait_until(lambda: store.calls >= 2)
    assert store.items == []
    for step in range(50, 100):
        outbox.put(point(step))
    store.away = False
    assert outbox.flush(180)
    assert store.steps() == list(range(100))


def test_memory_stays_bounded_while_the_store_is_away(store, tmp_path):
    store.gate.clear()
    box = Outbox(store, tmp_path / "spool", limit=100, interval=0.02)
    for step in range(1000):
        box.put(point(step))
    assert len(box._items) <= 100
    assert box.waiting() == 1000
    store.gate.set()
    assert box.close() == 0
    assert sorted(set(store.steps())) == list(range(1000))


def test_pictures_past_the_memory_limit_survive_the_spool(store, tmp_path):
    store.gate.clear()
    box = Outbox(store, tmp_path / "spool", limit_bytes=20_000, interval=0.02)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for step in range(4):
        box.put(Item("picture", "attention", image, now(), step))
    assert box._bytes <= 20_000
    store.gate.set()
    assert box.close() == 0
    assert sorted(set(store.steps())) == [0, 1, 2, 3]
    sent = [i.value for i in store.items if isinstance(i.value, bytes)]
    assert sent
    assert all(value.startswith(b"\x89PNG") for value in sent)


def test_a_process_that_ends_while_the_store_is_away_leaves_its_items_for_the_next(store, outbox, tmp_path):
    store.away = True
    for step in range(30):
        outbox.put(point(step))
    assert outbox.close(timeout=1) == 30
    assert [item.step for item in spooled(tmp_path / "spool")] == list(range(30))
    store.away = False
    following = Outbox(store, tmp_path / "spool", interval=0.02)
    following.put(point(30))
    assert following.close() == 0
    assert store.steps() == list(range(31))


def test_a_killed_process_loses_nothing_that_was_secured(store, outbox, tmp_path):
    store.gate.clear()
    for step in range(20):
        outbox.put(point(step))
    outbox.spool()  # and now the power goes: nobody calls close
    assert sorted(item.step for item in spooled(tmp_path / "spool")) == list(range(20))


def test_a_line_cut_in_the_middle_loses_only_itself(store, tmp_path, caplog):
    store.away = True
    box = Outbox(store, tmp_path / "spool", interval=0.02)
    box.put(point(1), point(2))
    box.close(timeout=0.2)
    for file in (tmp_path / "spool").glob("*.jsonl"):
        file.write_text(file.read_text()[:-20])
    assert [item.step for item in spooled(tmp_path / "spool")] == [1]
    assert "not a whole tracking item" in caplog.text


def test_one_refused_item_does_not_hold_up_the_others(store, outbox, tmp_path, caplog):
    store.refuses = {"bad"}
    outbox.put(*(point(step, "bad" if step == 7 else "train/loss") for step in range(20)))
    assert outbox.flush(180)
    assert sorted(store.steps()) == [step for step in range(20) if step != 7]
    assert "'bad'" in caplog.text
    assert "bad" in (tmp_path / "spool" / "refused.jsonl").read_text()


def test_messages_about_an_outage_are_few_and_have_no_password(store, outbox, caplog):
    store.away = True
    for step in range(5):
        outbox.put(point(step))
        wait_until(lambda step=step: store.calls > step)
    assert "sesame" not in caplog.text
    assert len(caplog.records) == 1
    store.away = False
    assert outbox.flush(180)
    assert "is back" in caplog.text


def test_a_full_disk_costs_the_oldest_points_and_not_the_training(store, tmp_path, caplog):
    store.away = True
    box = Outbox(store, tmp_path / "spool", interval=0.02, limit=10, longest_wait=0.1)
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("a file where the folder should be: nothing can be written under it")
    for step in range(30):
        box.put(point(step))
    wait_until(lambda: "are being lost" in caplog.text)
    store.away = False
    assert box.flush(180)
    assert store.steps() == list(range(20, 30))
    box.close(timeout=0.1)
    assert "20 tracking items were lost" in caplog.text
