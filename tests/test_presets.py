"""A preset sets sizes that belong together, and flags beside it count more."""

import re

import pytest
from cdrl_stage1 import cdrl_stage1
from cdrl_stage2 import cdrl_stage2
from documented import ROOT
from doors import command

from spfem_dist import presets
from spfem_dist.shard_format import ShardIndex, shards_digest
from spfem_dist.training.launch import parse
from spfem_dist.training.remarks import remarks


def run_of(recipe, *flags):
    return parse(recipe, list(flags)).run


@pytest.mark.parametrize("recipe", [cdrl_stage1, cdrl_stage2])
@pytest.mark.parametrize(
    ("preset", "size", "network"), [("laptop", 64, "small"), ("paper", 256, "paper"), ("paper-h100", 256, "paper")]
)
def test_a_preset_sets_size_and_networks_of_every_job(recipe, preset, size, network):
    for flags in (["--preset", preset], [f"--preset={preset}"]):
        run = run_of(recipe, *flags)
        assert run.data.size == size
        assert {job.network for job in run.jobs().values()} == {network}


def test_the_paper_preset_looks_at_224_of_256_pixels():
    run = run_of(cdrl_stage1, "--preset", "paper")
    for job in run.jobs().values():
        assert job.crop * run.data.size == 224
        assert 0.5 * job.crop <= job.crop_row <= 1 - 0.5 * job.crop


def test_the_preset_of_a_fast_gpu_changes_how_the_published_sizes_are_computed_alone():
    both = [run_of(cdrl_stage2, "--preset", preset).model_dump() for preset in ("paper", "paper-h100")]
    assert both[1]["zero"].pop("precision") == "bf16-mixed"
    assert both[1]["speed"].pop("compile") is True
    for run in both:
        run["zero"].pop("precision", None)
        run["speed"].pop("compile", None)
    assert both[0] == both[1]


def test_flags_beside_a_preset_count_more():
    run = run_of(cdrl_stage1, "--ccrl.global-batch", "8", "--preset", "paper", "--data.size", "128")
    assert (run.ccrl.global_batch, run.data.size, run.ccrl.network) == (8, 128, "paper")


def test_an_unknown_preset_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit, match=r"--preset 'papr' is not known; use one of laptop, paper, paper-h100"):
        run_of(cdrl_stage1, "--preset", "papr")


def test_a_plan_knows_presets_too():
    done = command("spfem", "plan", "recipes/cdrl_stage1.py", "--preset", "papr", "--assume", "h100")
    assert (done.code, "use one of laptop, paper" in done.said) == (1, True)


def shards(size: int, landmarks: str = "mesh478") -> ShardIndex:
    digest = shards_digest([])
    known = {"corpus": "mead", "fps": 25, "speech_features": "logmel", "feature_dim": 160, "shards": []}
    return ShardIndex(size=size, landmarks=landmarks, digest=digest, **known)


@pytest.mark.parametrize(
    ("flags", "size", "said"),
    [
        (["--preset", "laptop"], 64, []),
        (["--preset", "paper"], 256, []),
        (
            ["--preset", "laptop"],
            256,
            ["hold faces of 256 px and data.size is 64: frames are scaled down.*--preset paper"],
        ),
        (["--preset", "paper"], 64, ["hold faces of 64 px and data.size is 256: frames are enlarged"]),
        (
            ["--ccrl.network", "paper"],
            64,
            [r"published networks \(ccrl\) are made for faces of 224 to 256 px, and data.size is 64: --preset paper"],
        ),
    ],
)
def test_sizes_that_do_not_belong_together_are_said_in_one_line(flags, size, said):
    found = remarks(run_of(cdrl_stage1, *flags), shards(size))
    assert len(found) == len(said)
    assert all(re.search(pattern, line) for pattern, line in zip(said, found, strict=True))


def test_the_readme_names_sizes_and_networks_of_the_presets():
    readme = (ROOT / "README.md").read_text()
    for name, (sections, job) in presets.PRESETS.items():
        data = sections["data"]
        row = next(line for line in readme.splitlines() if f"`--preset {name}`" in line)
        for word in (f"{data['size']} px", f"`--size {data['size']}`", job["network"]):
            assert word in row
