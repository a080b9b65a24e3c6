"""Keeping the winner of a race whose cells save no models: where each is as large as a language model, all would fill a
disk. So the winner's cell runs once more, and is kept if it comes out as it did."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError
from paceline.core.files import seal, write_json
from paceline.race.cell import Cell, read_record
from paceline.race.contestant import Contestant, Event, Job
from paceline.race.keep import MARK
from paceline.race.pool import Limits, run_cells


def result_of(out: Path) -> dict[str, Any]:
    """The result of a race that was run there."""
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return result


def keep_winner(out: Path, keep: Path, contestant: Contestant, event: Event, limits: Limits) -> None:
    """Run the winner's cell again and save its model; `keep` appears whole, and the result names it.

    Args:
        out: the race's folder.
        keep: where the model goes.
        contestant: the winner, made so that it saves.
        event: the race's only one.
        limits: as in the race.

    Raises:
        PacelineError: it failed, came out otherwise than in the race, or was stopped.
    """
    result = result_of(out)
    facts = result["winner"]
    record = next(
        c for c in result["cells"]
        if (c["contestant"], c["seed"], c["status"]) == (facts["contestant"], facts["seed"], "done")
    )  # fmt: skip
    keep.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=keep.parent, prefix=f".{keep.name}."))
    try:
        job = Job(event, facts["seed"], record["lr"], work / "checkpoints", work / "new")
        cell = Cell("keeping", contestant, job, work / "cell.json")
        try:
            list(run_cells([cell], limits, lambda *_: None))
        except KeyboardInterrupt:
            raise PacelineError("Stopped before the winner was kept: the same command keeps it.") from None
        made = read_record(cell)
        if made is None or made["score"] is None:
            raise PacelineError(
                f"The winner could not be kept: {made and made['reason']} The same command tries again."
            )
        if abs(made["score"] - record["score"]) > 0.01:
            raise PacelineError(
                f"The winner had {record['score']:.3f} and trained again {made['score']:.3f}: it was not kept."
            )
        write_json(work / "new" / MARK, {"identity": json.loads((out / "race.json").read_text("utf-8")), **facts})
        if keep.is_dir():
            keep.rmdir()  # empty, or the race had refused it
        os.replace(work / "new", keep)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    facts["folder"] = str(keep)
    write_json(out / "result.json", seal(result))
