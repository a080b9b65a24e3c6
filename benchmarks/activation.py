"""Draw how much attention SeqBoat's layers asked for: `python benchmarks/activation.py`, after its claims have run."""

import json
from pathlib import Path

from paceline.report.activation import activation_picture, activations

RESULTS = Path(__file__).parents[1] / "results" / "mixers"
METHOD = "seqboat(memory=32)"

if __name__ == "__main__":
    verdicts = [RESULTS / "seqboat.json", RESULTS / "seqboat_encoder.json"]
    rows = [row for path in verdicts for row in activations(json.loads(path.read_text(encoding="utf-8")), METHOD)]
    activation_picture(rows, RESULTS / "activation.svg")
