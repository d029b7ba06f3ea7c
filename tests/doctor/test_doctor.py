"""`spfem doctor` on a real Ray: what is sound passes, what is broken is named, and nothing is left behind."""

import json

from documented import words_of
from doors import command


def checked(done):
    return {c["check"]: c for c in json.loads(done.out)["checks"]}


def test_the_doctor_looks_at_this_machine_through_a_recipes_flags(coded, tmp_path):
    line = "spfem doctor recipes/cdrl_stage1.py"
    places = ["--checkpoint.storage", tmp_path / "runs", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = command(*words_of(line), "--data.shards", coded, *places, "--probe-mb", "2", "--json", timeout=500)
    found = checked(done)
    bad = {name: c for name, c in found.items() if c["status"] == "failed"}
    assert (done.code, bad) == (0, {}), done.err
    assert found["all-reduce"]["figures"]["bandwidth_bytes_per_s"] > 0
    assert found["storage"]["figures"]["write_mb_per_s"] > 0
    assert "equal everywhere" in found["versions"]["found"]
    assert list((tmp_path / "runs").iterdir()) == []
