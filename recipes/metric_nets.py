"""The judges of generated frames: an oracle for emotion and mouth, a face's identity, lips and speech in step.

    python recipes/metric_nets.py                                  # a laptop: local Ray, two CPU workers
    python recipes/metric_nets.py --dry-run                        # train nothing, say what would happen
    python recipes/metric_nets.py --local                          # one process, no Ray
    ray job submit --working-dir . -- python recipes/metric_nets.py --data.shards s3://bucket/mead

Each judge is checked on the test part at its end; the figures are printed and kept in <run>/<judge>/model/config.json.
`spfem evaluate generator` names the run's folder.
"""

from spfem_dist.config import Data, Scaling
from spfem_dist.evaluation.judges.settings import JudgesRun
from spfem_dist.evaluation.judges.stage import JudgeStage
from spfem_dist.training.launch import main


def metric_nets() -> JudgesRun:
    """All three judges, on shards in shards/synthetic."""
    return JudgesRun(
        name="judges",
        recipe="metric_nets",
        data=Data(shards="shards/synthetic", split="synthetic", frames_per_recording=25),
        scaling=Scaling(workers=2),
    )


if __name__ == "__main__":
    main(metric_nets, JudgeStage())
