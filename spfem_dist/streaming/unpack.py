"""A recording out of a shard as a film that plays: its video and its speech side by side, and its landmarks."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np

from spfem_dist.records import Recording
from spfem_dist.streaming.encoded import KNOWN_FORMATS


def unpack(recording: Recording, file: Path) -> tuple[Path, Path | None]:
    """Write the recording's video and speech to `file` (.mp4), nothing re-encoded, and its landmarks beside it (.npy).

    The landmarks are float32 [T, L, 2] in pixels of the film, as `spfem edit --landmarks` wants them. Returns both paths, None for landmarks that
    the shard does not hold. Folders are made. Raises ValueError where the recording was read without its sound.
    """
    if not recording.speech:
        raise ValueError(f"recording {recording.name} was read without its sound: read the whole group")
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as film:
        inputs = [
            av.open(io.BytesIO(content), "r", options=KNOWN_FORMATS) for content in (recording.video, recording.speech)
        ]
        pairs = [(each, film.add_stream_from_template(each.streams[0])) for each in inputs]
        for each, stream in pairs:
            for packet in each.demux(each.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    film.mux(packet)
            each.close()
    if recording.landmarks is None:
        return file, None
    points = file.with_suffix(".npy")
    np.save(points, recording.landmarks.astype(np.float32), allow_pickle=False)
    return file, points
