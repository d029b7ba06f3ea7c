"""Write cluster/locks: what the images install, each package with the hashes of its files on PyPI; `make lock` starts it.

At the versions of constraints.txt, for Python 3.11 on Linux. PyTorch's build for CPUs lies in an index of PyTorch's own, which hands out other
files: the CPU image installs it first, by its version alone, and `cpu.txt` has neither it nor the CUDA libraries.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "cluster" / "locks"
#: What the build of PyTorch for GPUs brings.
CUDA = re.compile(r"(torch|triton|cuda-\w+|nvidia-[\w-]+)==")
HEAD = "# Written by `make lock` from pyproject.toml and constraints.txt, for Python 3.11 on Linux: pip install --require-hashes -r {name}\n"


def compiled(*source: str, lines: str = "") -> str:
    """Requirements, pinned and hashed, one after the other. source: as `uv pip compile` names them; `-` stands for `lines`."""
    words = ["--quiet", "--generate-hashes", "--no-header", "--no-annotate", "-c", "constraints.txt"]
    words += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    words += ["--index-url", "https://pypi.org/simple"]
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [uv, "pip", "compile", *words, *source], cwd=ROOT, input=lines, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"uv could not resolve it:\n{done.stderr}")
    return done.stdout


def without(text: str, packages: re.Pattern[str]) -> str:
    """The requirements without those whose first line matches."""
    return "".join(part for part in re.split(r"(?m)^(?=\S)", text) if not packages.match(part))


def main() -> None:
    """Write them all."""
    texts = {
        "gpu": compiled("pyproject.toml", "--extra", "gpu"),
        "cpu": without(compiled("pyproject.toml"), CUDA),
        "mlflow": compiled("-", lines="mlflow[auth]\npsycopg2-binary\nboto3\n"),
    }
    LOCKS.mkdir(exist_ok=True)
    for name, text in texts.items():
        (LOCKS / f"{name}.txt").write_text(HEAD.format(name=f"{name}.txt") + text)


if __name__ == "__main__":
    main()
