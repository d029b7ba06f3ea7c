"""What commands are about, sound as it is made here; each attempt spoils a copy. A piece is made when it is first wanted."""

import os
import shutil
import sys
from functools import cached_property
from pathlib import Path

from children import ROOT, call

#: Flags of the smallest run; of two equal ones the later counts.
TINY = ["--local", "--scaling.workers", "1", "--data.size", "32", "--storage.patience-s", "0.5", "--tracking.uri", ""]
TINY += ["--validation.every-steps", "0", "--tracking.pictures-every-steps", "0"]
STAGE1 = ["--cerl.enabled", "False", "--ccrl.steps", "2", "--ccrl.global-batch", "2", "--data.split", "none"]
STAGE2 = ["--ned.steps", "2", "--ned.global-batch", "2", "--ned.windows", "4", "--ned.renderer", "residual"]
STAGE2 += ["--data.frames-per-recording", "10", "--pretraining.enabled", "False"]
#: Networks and caches are this machine's own; nothing else of its environment is seen, and no other machine is reached.
NOWHERE = "http://127.0.0.1:9"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command in `folder`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = {"SPFEM_WEIGHTS": str(cache / "spfem" / "weights"), "MPLCONFIGDIR": str(cache / "matplotlib")}
    away = dict.fromkeys(("AWS_ENDPOINT_URL", "PIP_INDEX_URL", "http_proxy", "https_proxy"), NOWHERE)
    quiet = {"AWS_EC2_METADATA_DISABLED": "true", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    quiet |= {"no_proxy": "127.0.0.1,localhost", "RAY_ADDRESS": "127.0.0.1:9", "MLFLOW_DISABLE_TELEMETRY": "true"}
    one = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "COLUMNS": "200", "TOKENIZERS_PARALLELISM": "false"}
    home = {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home" / "cache"),
        "TMPDIR": str(folder / "tmp"),
    }
    return kept | places | away | quiet | one | home | more


class Ground:
    """Sound data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _made(self, name: str, function) -> None:
        place = self.folder / f"making-{name}"
        for inner in ("home", "tmp"):
            (place / inner).mkdir(parents=True)
        ended = call(function, place, environment(place), work=300)
        if ended.status:
            raise RuntimeError(
                f"{name} could not be made (status {ended.status}):\n{ended.out[-2000:]}\n{ended.err[-3000:]}"
            )
        shutil.rmtree(place)

    @cached_property
    def toy(self) -> Path:
        """Shards of four speakers, `split.json`, and priors that nobody trained in `stage1`."""
        folder = self.folder / "toy"

        def make() -> None:
            sys.path.append(str(ROOT / "recipes"))
            from toy_stage2 import make_toy

            make_toy(folder)

        self._made("toy", make)
        return folder

    @cached_property
    def films(self) -> Path:
        """`talk.mp4` with its landmarks in `talk.npy`, and `M1/happy/a.mp4`, `M1/neutral/a.mp4` as people sort them."""
        folder = self.folder / "films"

        def make() -> None:
            import numpy as np
            from toy_generator import film, talking_head

            head = talking_head(frames=12)
            film(folder / "talk.mp4", head.frames)
            np.save(folder / "talk.npy", head.landmarks)
            for emotion in ("happy", "neutral"):
                film(folder / "M1" / emotion / "a.mp4", talking_head(2 if emotion == "happy" else 1, frames=12).frames)

        self._made("films", make)
        return folder

    @cached_property
    def generator(self) -> Path:
        """The generator of the package."""
        return Path(shutil.copytree(ROOT / "spfem_dist" / "generators" / "shipped", self.folder / "generator"))

    @cached_property
    def runs(self) -> Path:
        """The finished stage-1 run `r` and its MLflow store `mlflow.db`."""
        toy, folder = self.toy, self.folder / "runs"
        places = ["--data.shards", str(toy / "shards"), "--checkpoint.storage", str(folder), "--name", "r"]
        words = ["python", str(ROOT / "recipes" / "cdrl_stage1.py"), *places, *TINY, *STAGE1]
        words += ["--tracking.uri", f"sqlite:///{folder}/mlflow.db", "--tracking.system-metrics", "False"]
        self._made("runs", lambda: _program(words))
        return folder

    #: Flags of CERL on a small frozen CLIP.
    KEEPING = ("--ccrl.enabled", "False", "--cerl.form", "released", "--cerl.steps", "2", "--cerl.global-batch", "2")

    @cached_property
    def features(self) -> Path:
        """What that trunk makes of the frames of the split's training speakers, as a run keeps it."""
        toy, folder = self.toy, self.folder / "features"
        places = ["--data.shards", str(toy / "shards"), "--data.split", str(toy / "split.json"), "--name", "r"]
        places += ["--checkpoint.storage", str(self.folder / "kept"), "--cerl.feature-cache", str(folder)]
        words = ["python", str(ROOT / "recipes" / "cdrl_stage1.py"), *TINY, *self.KEEPING, *places]
        self._made("features", lambda: _program(words))
        return folder

    @cached_property
    def guided(self) -> Path:
        """The finished stage-2 run `r`."""
        toy, folder = self.toy, self.folder / "guided"
        places = ["--data.shards", str(toy / "shards"), "--checkpoint.storage", str(folder), "--name", "r"]
        places += ["--data.split", str(toy / "split.json"), "--priors", str(toy / "stage1")]
        words = ["python", str(ROOT / "recipes" / "cdrl_stage2.py"), *places, *TINY, *STAGE2]
        self._made("guided", lambda: _program(words))
        return folder


def _program(words: list[str]) -> None:
    from children import as_program

    as_program(words)
