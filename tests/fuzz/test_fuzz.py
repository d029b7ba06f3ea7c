"""Some attempts of every kind show no fault; and the faults that there could be are seen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def fuzz(*flags) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, HERE, *map(str, flags)], capture_output=True, text=True, timeout=550)


@pytest.mark.nightly
def test_a_dozen_attempts_show_no_fault():
    """The same ones each time; `.ci/run` makes 40 at every change, and `make nightly` as many others as an hour allows."""
    done = fuzz("--attempts", 12, "--seed", 20)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    assert "12 attempts, no fault" in done.stdout


#: What a command could do -> what it is called.
PLANTED = {
    "raise KeyError('x')": "traceback: KeyError: 'x'",
    "try: time.sleep(30)\nexcept KeyboardInterrupt: sys.exit('stopped')": "",
    "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(30)": "hang: ",
    "block = bytearray(2**29); block[::4096] = b'x' * 2**17; time.sleep(5)": "memory: ",
    "os.kill(os.getpid(), signal.SIGSEGV)": "signal: SIGSEGV",
    "sys.exit(3)": "silence: status 3",
    "sys.exit('x' * 20_000)": "length: ",
    "print('the password is qanary')": "secret: printed",
    "open('log', 'w').write('qanary')": "secret: in the file log",
    "open('old', 'a').write('qanary')": "secret: in the file old",
    "print(os.environ['SECRET'])": "secret: printed",
    "print(len(os.environ['SECRET'])); print(open('kept').read()[:3])": "",
    "sys.exit('a short sentence')": "",
    "threading.Thread(target=lambda: print('qanary'), daemon=False).start()": "secret: printed",
    "atexit.register(lambda: print('qanary'))": "secret: printed",
    "print('MarkupError: closing tag')": "markup: ",
}

PROGRAM = """
import atexit, json, os, signal, sys, threading, time
from pathlib import Path
import children, verdict

def what():
    exec(sys.argv[2])

folder = Path(sys.argv[1])
before = verdict.files(folder)
ended = children.call(what, folder, {"SECRET": "qanary"}, work=0.3, patience=0.7, memory=2**28)
print(json.dumps(verdict.faults(ended, before, folder)))
"""


@pytest.mark.parametrize(("what", "fault"), PLANTED.items(), ids=[what[:40] for what in PLANTED])
def test_a_fault_is_seen(what, fault, tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("kept", "old"):
        (tmp_path / "here" / name).write_text("qanary, as it was before")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "here", what], cwd=HERE, capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert [one[: len(fault)] for one in found] == ([fault] if fault else []), f"{found}\n{done.stderr}"


@pytest.mark.nightly
def test_the_same_number_is_the_same_attempt():
    first, again = (fuzz("--seed", 3, "--only", 5, "--show").stdout for _ in range(2))
    words = [next(line for line in said.splitlines() if line.startswith("5 ")) for said in (first, again)]
    assert words[0] == words[1]
