"""What a page keeps goes with it, with the next film, after an hour, at the end, and after a kill."""

import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

from spfem_dist.web import visits as room
from spfem_dist.web.visits import Dropped, Gone, Visits


def dropped(visits, page, which="film"):
    """A file that was uploaded, and is the visit's."""
    path = visits.upload(".mp4")
    path.write_bytes(b"film")
    visits.of(page).drop(which, visits.claim(path))
    return path


def files(visits):
    return sorted(p for p in visits.root.rglob("*") if p.is_file() and p.name != ".lock")


def test_a_closed_page_leaves_no_file_and_others_keep_theirs(visits):
    dropped(visits, "a")
    dropped(visits, "a", "reference")
    (visits.of("a").new_folder() / "edited.mp4").write_bytes(b"edit")
    kept = dropped(visits, "b")
    visits.end("a")
    assert files(visits) == [kept]


def test_another_film_takes_the_place_of_the_one_before_and_of_its_result(visits):
    dropped(visits, "a")
    (visits.of("a").new_folder() / "edited.mp4").write_bytes(b"edit")
    kept = dropped(visits, "a")
    assert files(visits) == [kept]


def test_work_on_a_film_that_was_replaced_or_whose_page_was_closed_stops(visits):
    visit = visits.of("a")
    visit.film = film = Dropped(film=None)
    visit.alive(film)
    visit.drop("film")
    with pytest.raises(Gone):
        visit.alive(film)
    visit.film = film
    visits.end("a")
    with pytest.raises(Gone):
        visit.alive(film)


def test_after_an_hour_films_results_and_forgotten_uploads_go(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clock = [time.time()]
    visits = Visits(now=lambda: clock[0])
    dropped(visits, "a")
    (visits.of("a").new_folder() / "edited.mp4").write_bytes(b"edit")
    visits.upload(".mp4").write_bytes(b"of a page that was closed at once")
    clock[0] += 3500
    visits.sweep()
    assert len(files(visits)) == 3
    clock[0] += 200
    visits.sweep()
    assert files(visits) == []
    assert visits.of("a").film is None
    visits.close()


def test_an_upload_is_one_pages_alone(visits):
    path = dropped(visits, "a")
    with pytest.raises(Gone):
        visits.claim(path)
    with pytest.raises(Gone):
        visits.claim(visits.upload(".mp4"))  # never came


def test_what_is_no_upload_belongs_to_nobody(visits, tmp_path):
    assert visits.claim(tmp_path / "example.mp4") is None


def test_at_the_end_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    visits = Visits()
    dropped(visits, "a")
    visits.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start_and_a_live_ones_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = f"""
        import os, tempfile
        tempfile.tempdir = {str(tmp_path)!r}
        from spfem_dist.web.visits import Visits
        visits = Visits()
        visits.upload(".mp4").write_bytes(b"film")
        print(visits.root, flush=True)
        os.kill(os.getpid(), 9)
    """
    left = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    ).stdout.strip()
    assert (tmp_path / left).exists()
    first = Visits()
    assert not (tmp_path / left).exists()
    second = Visits()
    assert first.root.exists()
    first.close()
    second.close()


def test_a_folder_that_is_written_to_until_the_work_stops_is_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    real, times = shutil.rmtree, []

    def raced(path, **how):
        times.append(1)
        if len(times) > 3:
            real(path, **how)

    monkeypatch.setattr(room.shutil, "rmtree", raced)
    room.remove(folder)
    assert not folder.exists()
