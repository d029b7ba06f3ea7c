"""The process that measures: reads rows from its standard input, one JSON object a line, and writes each result to a file.

It lives on from row to row, since importing and starting CUDA cost seconds; `benchmarks/gpu.py` ends it where a row hangs.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure until the standard input ends."""
    import torch

    from on_gpu import decoding, steps

    kinds: dict[str, Callable[..., dict[str, Any]]] = {
        "decode": decoding.frames_per_second,
        "step": steps.step,
        "wait": steps.waiting,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = {"status": "ok"} | kinds[request["kind"]](**request["asked"])
        except Exception as error:
            traceback.print_exc()
            said = " ".join(f"{type(error).__name__}: {error}".split())
            # After a fault of the GPU nothing works in this process any more.
            broken = isinstance(error, getattr(torch, "AcceleratorError", ())) or "CUDA error" in said
            result = {"status": "error", "error": said[:600], "broken": broken}
        sys.stdout.flush()
        unfinished = Path(request["result"] + ".partial")
        unfinished.write_text(json.dumps(result))
        os.replace(unfinished, request["result"])
        gc.collect()
        torch._dynamo.reset()
        if torch.cuda.is_available() and not result.get("broken"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
