"""`spfem data show`: what is in shards, as tables for a person, JSON for a program, a contact sheet, or one recording as a film."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import soundfile
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from spfem_dist.console import plain_console
from spfem_dist.files import whole_file
from spfem_dist.inventory import groups_of, lacking_pairs, speakers_by_emotion
from spfem_dist.records import Recording, UtteranceGroup
from spfem_dist.shard_format import ShardIndex
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.reader import ShardReader

#: Groups that are opened for time-warps and found faces, spread evenly over the shards.
_OPENED = 64
#: Speakers in the table and on the contact sheet.
_SPEAKERS_LISTED, _SPEAKERS_SHOWN = 24, 12
_TILE, _LABEL = 96, 14


def show(
    shards: str, as_json: bool = False, sheet: Path | None = None, sample: str = "", out: Path | None = None
) -> None:
    """Print what is in `shards`, a folder or s3://bucket/prefix.

    sheet: also write a picture there, the middle frame of each speaker in each emotion. sample: write this recording
    (`M003_001/happy-3-1`, or the first of the group `M003_001`) to the film `out` with its sound, in place of the tables.
    Raises FileNotFoundError where there are no shards, ValueError for an unknown sample or file names that cannot be.
    """
    if (not sample) != (out is None):
        raise ValueError("--sample KEY and --out clip.mp4 belong together: which recording, and the film to write")
    if out is not None and out.suffix.lower() not in (".mp4", ".mkv"):
        raise ValueError(f"--out {out}: a film ends in .mp4 or .mkv")
    if sheet is not None and sheet.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
        raise ValueError(f"--sheet {sheet}: a picture ends in .jpg, .png or .webp")
    reader = ShardReader(shards, cache_mb=0, retries=2)  # of shards in S3 only what is looked at is fetched
    console = plain_console(soft_wrap=False, stderr=as_json)
    if out is not None:
        group, recording = _find(reader, sample)
        write_film(out, group.fps, recording)
        others = ", ".join(r.name for r in group.recordings if r is not recording)
        console.print(
            f"{out}: {group.key}/{recording.name}, {recording.frames} frames ({recording.frames / group.fps:.1f} s)"
            + (f"; others of its group: {others}" if others else ""),
            highlight=False,
            soft_wrap=True,
        )
        return
    found = facts(reader, _rejects(shards))
    if sheet is not None:
        with whole_file(sheet) as temporary:
            contact_sheet(reader).save(temporary, sheet.suffix[1:].lower().replace("jpg", "jpeg"))
        console.print(f"contact sheet: {sheet}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print(console, shards, reader.index, found)


def facts(reader: ShardReader, rejects: list[dict[str, str]]) -> dict[str, Any]:
    """What `show` says, as JSON values. rejects: rows of rejects.csv."""
    index = reader.index
    groups = groups_of(index)
    seconds = [r.frames / index.fps for group in groups for r in group.recordings]
    costs, valid, opened = _opened(reader)
    reasons: dict[str, dict[str, Any]] = {}
    for row in rejects:
        entry = reasons.setdefault(row["reason"], {"count": 0, "example": row["detail"]})
        entry["count"] += 1
    return {
        "corpus": index.corpus,
        "digest": index.digest,
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "groups": len(groups),
        "sentences": len({group.sentence for group in groups}),
        "recordings": len(seconds),
        "frame_size": [index.size, index.size],
        "fps": index.fps,
        "speech_features": f"{index.speech_features} ({index.feature_dim})",
        "landmarks": index.landmarks,
        "seconds": {"total": round(sum(seconds), 2), **_spread(seconds)},
        "speakers": {
            speaker: {emotion.value: count for emotion, count in row.items()}
            for speaker, row in speakers_by_emotion(index).items()
        },
        "emotions_of_a_group": dict(sorted(Counter(len({r.emotion for r in g.recordings}) for g in groups).items())),
        "opened_groups": opened,
        "warp_costs": _spread(costs),
        "frames_with_a_face": round(float(np.mean(valid)), 4) if valid else None,
        "rejects": reasons,
        "lacks": lacking_pairs(index),
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    points = {"least": 0, "median": 50, "nine_tenths": 90, "most": 100}
    return {name: round(float(np.percentile(values, point)), 3) for name, point in points.items()}


def _opened(reader: ShardReader) -> tuple[list[float], list[float], int]:
    """Costs of time-warps, share of frames with a face by recording, and of how many groups."""
    places = [(s, g) for s, shard in enumerate(reader.index.shards) for g in range(len(shard.groups))]
    chosen = [
        places[n] for n in np.unique(np.linspace(0, len(places) - 1, min(_OPENED, len(places))).round().astype(int))
    ]
    costs: list[float] = []
    valid: list[float] = []
    for place in chosen:
        group = reader.read(place[0], place[1], whole=False)
        costs += [cost for cost in group.warp_costs.values() if np.isfinite(cost)]
        valid += [float(recording.valid.mean()) for recording in group.recordings]
    return costs, valid, len(chosen)


def _rejects(shards: str) -> list[dict[str, str]]:
    """The rows of rejects.csv beside the index; none where shards were copied without it."""
    filesystem, root = open_filesystem(shards)
    path = f"{root}/rejects.csv"
    if not filesystem.exists(path):
        return []
    return list(csv.DictReader(io.StringIO(filesystem.cat_file(path).decode())))


# --- for a person -------------------------------------------------------------------------------------------------


def _print(console: Console, shards: str, index: ShardIndex, found: dict[str, Any]) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    length, cost = found["seconds"], found["warp_costs"]
    say(
        f"{shards}: {found['corpus']}, {found['recordings']:,} recordings in {found['groups']:,} groups of "
        f"{found['sentences']:,} sentences, {length['total'] / 60:,.1f} min"
    )
    say(
        f"frames {index.size} x {index.size} at {index.fps:g} fps; speech {found['speech_features']}; landmarks {index.landmarks}; "
        f"{found['shards']:,} shards, {found['bytes'] / 1e6:,.1f} MB; data set {index.digest[:12]}"
    )
    console.print(_speakers(found["speakers"]))
    say(f"durations: {length['least']:.1f} to {length['most']:.1f} s, half of them up to {length['median']:.1f} s")
    by_count = ", ".join(f"{count:,} with {n}" for n, count in found["emotions_of_a_group"].items())
    say(f"groups by their emotions: {by_count}")
    of = f"of {found['opened_groups']} groups" if found["opened_groups"] < found["groups"] else "of all groups"
    if cost:
        say(
            f"time-warps {of}: mean cost {cost['least']:.2f} to {cost['most']:.2f}, half up to {cost['median']:.2f}, nine tenths up to "
            f"{cost['nine_tenths']:.2f} (--data.maximum-warp-cost leaves dearer ones out)"
        )
    say(f"frames with a face, {of}: {found['frames_with_a_face']:.1%}")
    for reason, entry in sorted(found["rejects"].items(), key=lambda item: -item[1]["count"]):
        say(f"not used, {reason}: {entry['count']:,}, such as: {entry['example']}")
    if found["lacks"]:
        say(f"note: {found['lacks']}")


def _speakers(speakers: dict[str, dict[str, int]]) -> Table:
    """Recordings by speaker and emotion; fits 80 columns with all nine emotions."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("speaker", max_width=16, no_wrap=True, overflow="ellipsis")
    emotions = list(next(iter(speakers.values()), {}))
    for emotion in emotions:
        table.add_column(emotion[:4], justify="right", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    for speaker, row in list(speakers.items())[:_SPEAKERS_LISTED]:
        table.add_row(speaker, *(str(row[e] or "-") for e in emotions), f"{sum(row.values()):,}")
    if len(speakers) > _SPEAKERS_LISTED:
        table.add_row(f"and {len(speakers) - _SPEAKERS_LISTED} more")
    totals = [sum(row[e] for row in speakers.values()) for e in emotions]
    table.add_row(f"all {len(speakers)}", *(f"{total:,}" for total in totals), f"{sum(totals):,}", style="bold")
    return table


# --- pictures and films -------------------------------------------------------------------------------------------


def contact_sheet(reader: ShardReader) -> Image.Image:
    """The middle frame of each speaker's first recording in each emotion: speakers down, emotions across, both named."""
    speakers = speakers_by_emotion(reader.index)
    emotions = list(next(iter(speakers.values())))
    shown = list(speakers)[:_SPEAKERS_SHOWN]
    left = 8 + 7 * max(map(len, shown))
    sheet = Image.new("RGB", (left + len(emotions) * _TILE, _LABEL + len(shown) * _TILE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, emotion in enumerate(emotions):
        draw.text((left + column * _TILE + 4, 1), emotion.value, "black")
    for row, speaker in enumerate(shown):
        draw.text((4, _LABEL + row * _TILE + _TILE // 2 - 6), speaker, "black")
    wanted = {(speaker, emotion) for speaker in shown for emotion in emotions}
    for s, shard in enumerate(reader.index.shards):
        for g, entry in enumerate(shard.groups):
            if not any((entry.speaker, r.emotion) in wanted for r in entry.recordings):
                continue
            for recording in reader.read(s, g, whole=False).recordings:
                if (entry.speaker, recording.emotion) in wanted:
                    wanted.remove((entry.speaker, recording.emotion))
                    face = Image.fromarray(_middle_frame(recording)).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
                    place = (emotions.index(recording.emotion), shown.index(entry.speaker))
                    sheet.paste(face, (left + place[0] * _TILE, _LABEL + place[1] * _TILE))
    return sheet


def _middle_frame(recording: Recording) -> np.ndarray:
    with av.open(io.BytesIO(recording.video), "r") as container:
        frames = container.decode(video=0)
        frame = next(f for number, f in enumerate(frames) if number >= recording.frames // 2)
        return cast(np.ndarray, frame.to_ndarray(format="rgb24"))


def _find(reader: ShardReader, sample: str) -> tuple[UtteranceGroup, Recording]:
    key, _, name = sample.partition("/")
    for s, shard in enumerate(reader.index.shards):
        for g, entry in enumerate(shard.groups):
            if entry.key != key:
                continue
            group = reader.read(s, g, whole=False)
            recording = next((r for r in group.recordings if name in ("", r.name)), None)
            if recording is None:
                known = ", ".join(r.name for r in group.recordings)
                raise ValueError(
                    f"--sample {sample}: the group {key} holds {known}; name one of them, as {key}/{known.split(',')[0]}"
                )
            return group, recording
    keys = [group.key for group in groups_of(reader.index)]
    near = difflib.get_close_matches(key, keys, 3, 0.3) or keys[:3]
    raise ValueError(
        f"--sample {sample}: no group {key!r} in these shards; there are {len(keys):,}, such as {', '.join(near)}"
    )


def write_film(out: Path, fps: float, recording: Recording) -> None:
    """Write a recording as a film with its speech: its pictures as they are stored, packet by packet, and sound in AAC."""
    speech, rate = soundfile.read(io.BytesIO(recording.speech), dtype="float32")
    with (
        whole_file(out) as temporary,
        av.open(io.BytesIO(recording.video), "r") as stored,
        av.open(str(temporary), "w", format={".mp4": "mp4", ".mkv": "matroska"}[out.suffix.lower()]) as film,
    ):
        source = stored.streams.video[0]
        video = film.add_stream_from_template(source)
        audio = cast(av.AudioStream, film.add_stream("aac", rate=rate, layout="mono"))
        for packet in stored.demux(source):
            if packet.dts is not None:
                packet.stream = video
                film.mux(packet)
        for begin in range(0, len(speech), 1024):
            frame = av.AudioFrame.from_ndarray(speech[None, begin : begin + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, begin
            film.mux(audio.encode(frame))
        film.mux(audio.encode(None))
