"""Run `docs/tour.md` line by line and keep how long each took: `python benchmarks/tour.py [FAMILY ...]`.

Writes results/bench/tour.json, where lines that were not run again keep what they had. Run it from a clean clone.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from paceline.core.files import write_json
from paceline.race.result import environment

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "bench" / "tour.json"


def lines() -> dict[str, str]:
    """The command of each family."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "docs" / "tour.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert block is not None
    pairs = [line.rsplit("#", 1) for line in block[1].splitlines()]
    return {family.strip(): command.strip() for command, family in pairs}


def main(wanted: list[str]) -> None:
    """Time the lines."""
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {"lines": {}}
    for family, command in lines().items():
        if wanted and family not in wanted:
            continue
        for made in re.findall(r"--(?:out|keep) (runs/tour/\w+)", command):
            shutil.rmtree(ROOT / made, ignore_errors=True)  # else a race that is finished would only be shown
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds = round(time.monotonic() - began, 1)
        print(f"{family:12} {seconds:6.1f} s  exit {done.returncode}")
        if done.returncode:
            print(done.stdout[-2_000:], done.stderr[-2_000:])
        stored["lines"][family] = {"command": command, "seconds": seconds, "exit": done.returncode}
        write_json(STORED, {**stored, "environment": environment()})


if __name__ == "__main__":
    main(sys.argv[1:])
