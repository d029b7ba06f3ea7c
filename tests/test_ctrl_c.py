"""Ctrl-C ends a command in one line that says what is kept, with status 130."""

from doors import command


def interrupt(*_, **__):
    raise KeyboardInterrupt


def in_prepare() -> None:
    from spfem_dist.prepare import job

    job.build_shard = interrupt


def in_evaluation() -> None:
    from spfem_dist.evaluation import runs

    runs.evaluate_run = interrupt


def stopped(done, phrase: str) -> None:
    assert done.code == 130, done.said
    assert "Traceback" not in done.out + done.err
    assert done.err.split("\n")[1:] == [phrase, ""]


def test_prepare_stops_in_one_line_and_says_what_is_kept(tmp_path):
    words = ["spfem", "prepare", "synthetic", "--identities", 1, "--out", tmp_path / "shards", "--local"]
    done = command(*words, before=in_prepare)
    stopped(done, "stopped; finished shards are kept, and the same call goes on")


def test_evaluate_stops_in_one_line(tmp_path):
    stopped(command("spfem", "evaluate", "priors", tmp_path, before=in_evaluation), "stopped")
