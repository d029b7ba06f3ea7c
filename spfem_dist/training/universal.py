"""A checkpoint's shards for another number of workers, or another ZeRO stage: by DeepSpeed's universal checkpoint.

Of every parameter DeepSpeed then has a folder with its whole master weights and optimiser states, from which any rank of any
partition takes its part. They stay in the precision in which they were saved (fp32 masters, whatever zero.precision computes in).
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spfem_dist.training.averaging import KEY
from spfem_dist.training.scratch import scratch

#: Beside the converted networks: the same with the averages of their weights (see `averaging`) for master weights. DeepSpeed converts
#: weights and Adam's two moments, and leaves further states out.
AVERAGES = "averages"
#: torch's variable for it: `weights_only=False` of a caller counts no more.
_ALWAYS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class CannotReshard(ValueError):
    """Shards that DeepSpeed's universal checkpoint has no form for; the message says which."""


def convert(folder: Path, networks: Iterable[str], out: Path, source_stage: int, target_stage: int) -> None:
    """Write the checkpoint in `folder`, with all ranks' files, as a universal one to `out`, for engines of `target_stage`.

    Where the networks' optimisers keep averages, these lie beside it, in `AVERAGES`. Raises CannotReshard for optimisers other than Adam's
    kind.
    """
    for name in networks:
        _convert(folder / name, out / name, source_stage, target_stage)
        with scratch("averages") as averages:
            if averages_as_masters(folder / name, averages / name):
                _convert(averages / name, out / AVERAGES / name, source_stage, target_stage)


def _convert(folder: Path, out: Path, source_stage: int, target_stage: int) -> None:
    from deepspeed.checkpoint import ds_to_universal

    settings = Namespace(
        input_folder=str(folder),
        output_folder=str(out),
        num_extract_workers=1,  # others would be forked from a process with a GPU and communication threads
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=source_stage < 3,
    )
    with no_code(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it talks of every file
        try:
            ds_to_universal.main(settings)
        except KeyError as error:
            raise CannotReshard(f"the optimiser states of {folder.name} are not Adam's (there is no {error})") from None
    if source_stage < 3 <= target_stage:
        _state_as_stage3(out)
    elif target_stage < 3 <= source_stage:
        _state_as_stage2(out)


def averages_as_masters(folder: Path, out: Path) -> bool:
    """Write the shards in `folder` to `out` with the averages in the place of the master weights; whether there are any."""
    out.mkdir()
    for path in folder.iterdir():
        if not path.name.endswith("_optim_states.pt"):
            (out / path.name).symlink_to(path)
            continue
        saved = load_states(path)
        shard = saved["optimizer_state_dict"]
        if "fp32_flat_groups" in shard:  # ZeRO-3
            key, states = "fp32_flat_groups", shard["optimizer_state_dict"]["state"]
        else:
            key, states = "single_partition_of_fp32_groups", shard["base_optimizer_state"]["state"]
        parts = range(len(shard[key]))
        if any(KEY not in states[part] for part in parts):
            return False
        shard[key] = [states[part][KEY] for part in parts]
        torch.save(saved, out / path.name)
    return True


def restore_buffers(network: nn.Module, folder: Path) -> None:
    """Give the network its buffers (batch-norm statistics) from a converted checkpoint: DeepSpeed restores parameters only."""
    saved = load_states(_model_states(folder))
    network.load_state_dict({name: saved["module"][name] for name in saved["buffer_names"]}, strict=False)


def _model_states(folder: Path) -> Path:
    return min(folder.glob("*_model_states.pt"))


def _state_as_stage3(folder: Path) -> None:
    """ZeRO-3 looks for its step and settings in another place than ZeRO-1 and -2, and for a model file of another name."""
    state = load_states(folder / "zero" / "optimizer_state.pt")
    step = load_states(next(iter(sorted((folder / "zero").glob("*/step.pt")))))
    state["optimizer_state_dict"] = {"state": {0: {"step": step}}, "param_groups": state["param_groups"]}
    torch.save(state, folder / "zero" / "optimizer_state.pt")
    shutil.copyfile(_model_states(folder), folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")


def _state_as_stage2(folder: Path) -> None:
    """ZeRO-1 and -2 look for the step beside each parameter, for its states in a dictionary, for a version, and for a model file of
    another name."""
    import deepspeed

    state = load_states(folder / "zero" / "optimizer_state.pt")
    step = state["optimizer_state_dict"]["state"][0]["step"]
    torch.save(state | {"ds_version": deepspeed.__version__}, folder / "zero" / "optimizer_state.pt")
    for path in sorted((folder / "zero").glob("*/*.pt")):
        torch.save({"param": load_states(path), "cat_dim": 0}, path)
    for parameter in {path.parent for path in (folder / "zero").glob("*/fp32.pt")}:
        torch.save(step, parameter / "step.pt")
    shutil.copyfile(_model_states(folder), folder / "mp_rank_00_model_states.pt")


@contextmanager
def no_code() -> Iterator[None]:
    """Within, `torch.load` takes tensors and plain values alone, whoever calls it and however, and the few classes of DeepSpeed's that
    lie beside them in its checkpoints. DeepSpeed itself would run what such a file says. Raises ValueError for one that says more."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(_ALWAYS)
    os.environ[_ALWAYS] = "1"
    try:
        with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
            yield
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "a checkpoint holds more than tensors and plain values, so it was altered, or is of another version of DeepSpeed; nothing of it "
            f"was run: go on from another checkpoint ({reason[:300]})"
        ) from None
    finally:
        if before is None:
            del os.environ[_ALWAYS]
        else:
            os.environ[_ALWAYS] = before


def load_states(path: Path) -> Any:
    """What a file of a DeepSpeed checkpoint holds."""
    with no_code():
        return torch.load(path, map_location="cpu", weights_only=True)
