"""Facts about interruptions: whenever they come, the end is bit for bit that of a run that never was interrupted."""

import hashlib
import multiprocessing
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from _tiny import model, recall, same

from paceline.core.errors import PacelineError
from paceline.data.recall import Recall
from paceline.lm.checkpoint import load_training
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder
from paceline.lm.train import Recipe, train

STEPS = 12


def recipe(steps: int = STEPS) -> Recipe:
    return Recipe(tokens=steps * 4 * 12, batch=4, lr=1e-2, accumulate=2)


def run(folder, steps=STEPS, save_seconds=0.0, **options):
    lm = model("hybrid", 7)
    return lm, train(lm, recall(), recipe(steps), 1, folder=folder, save_seconds=save_seconds, **options)


def interrupted(folder, at: int, steps: int = STEPS) -> None:
    """Ctrl-C when the progress of step number `at` is told, which is before it is saved."""

    def stop(done, _of, _loss):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, steps, progress=stop)


def damage(folder: Path) -> None:
    newest = max(folder.iterdir()) / "training.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])


def check_equal(folder, reference, steps=STEPS) -> None:
    """Weights, curve, bill, optimizer moments and random state of a run finished now."""
    whole = run(reference, steps, save_seconds=1e9)
    resumed = run(folder, steps, save_seconds=1e9)
    assert same(resumed[0], whole[0])
    assert resumed[1].curve == whole[1].curve
    for name in ("tokens", "flops", "model_calls", "parameters"):
        assert getattr(resumed[1].ledger, name) == getattr(whole[1].ledger, name)
    (left, facts), (right, other) = load_training(folder), load_training(reference)
    assert left.keys() == right.keys()
    assert any(name.endswith("exp_avg_sq") for name in left)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert {**facts, "seconds": 0} == {**other, "seconds": 0}


def test_saving_changes_nothing(tmp_path):
    lm = model("hybrid", 7)
    trained = train(lm, recall(), recipe(), 1)
    saved, other = run(tmp_path)
    assert same(lm, saved)
    assert trained.curve == other.curve


@pytest.mark.parametrize("at", [1, 2, 7, STEPS])
def test_a_run_interrupted_once_ends_as_if_it_had_not(tmp_path, at):
    interrupted(tmp_path / "run", at)
    check_equal(tmp_path / "run", tmp_path / "reference")


def test_a_run_interrupted_again_and_again_ends_as_if_it_had_not(tmp_path):
    for at in (3, 3, 4, 9, 11):
        interrupted(tmp_path / "run", at)
    check_equal(tmp_path / "run", tmp_path / "reference")


@pytest.mark.parametrize("at", [3, 8, STEPS])
def test_with_the_newest_checkpoint_damaged_it_still_ends_the_same(tmp_path, at):
    interrupted(tmp_path / "run", at)
    damage(tmp_path / "run")
    check_equal(tmp_path / "run", tmp_path / "reference")


def test_between_two_points_of_the_curve_nothing_is_lost(tmp_path):
    """At 101 steps a point is two steps; the checkpoint after the first of them holds half a point."""

    class Dying(Recall):
        def batch(self, size, seed, step):
            if step == 4:
                raise KeyboardInterrupt
            return super().batch(size, seed, step)

    task = Dying(pairs=2, keys=3, values=3, stretch=4, queries=4)
    with pytest.raises(KeyboardInterrupt):
        train(model("hybrid", 7), task, recipe(101), 1, folder=tmp_path / "run", save_seconds=0.0)
    damage(tmp_path / "run")
    _, facts = load_training(tmp_path / "run")
    assert (facts["step"], len(facts["losses"])) == (3, 1)
    check_equal(tmp_path / "run", tmp_path / "reference", steps=101)


def test_a_finished_run_is_not_run_again(tmp_path):
    whole, trained = run(tmp_path)
    told = []
    again, once_more = run(tmp_path, progress=lambda *words: told.append(words))
    assert told == []
    assert same(whole, again)
    assert (trained.curve, trained.ledger.flops) == (once_more.curve, once_more.ledger.flops)


def decoder(*plan: str, width: int = 16) -> Decoder:
    torch.manual_seed(0)
    return build(Config(7, width, 24, plan, "recall"))


def start(folder, lm, task, seed=1, **changes):
    train(lm, task, Recipe(**{"tokens": 3 * 48, "batch": 4, **changes}), seed, folder=folder)


def test_the_checkpoints_of_another_run_are_refused(tmp_path):
    task, other = recall(), Recall(pairs=2, keys=3, values=3, stretch=3, queries=5)
    start(tmp_path, decoder("attention(window=4)"), task)
    strangers = [
        lambda: start(tmp_path, decoder("attention(window=4)"), task, seed=2),
        lambda: start(tmp_path, decoder("attention(window=4)"), task, lr=1e-4),
        lambda: start(tmp_path, decoder("attention(window=4)"), task, tokens=6 * 48),
        lambda: start(tmp_path, decoder("attention(window=4)"), other),
        lambda: start(tmp_path, decoder("attention(window=4)", width=24), task),
        lambda: start(tmp_path, decoder("attention(window=4)", "ema"), task),
        lambda: start(tmp_path, decoder("lightning"), task),
        lambda: start(tmp_path, decoder("attention(window=5)"), task),  # the same shapes
        lambda: start(tmp_path, decoder("attention"), task),
    ]
    for stranger in strangers:
        with pytest.raises(PacelineError, match=f"{tmp_path} holds the checkpoints of another (run|model)"):
            stranger()
    start(tmp_path, decoder("attention(window=4)").eval(), task)


def test_a_folder_of_damaged_checkpoints_is_refused(tmp_path):
    interrupted(tmp_path, 2)
    damage(tmp_path)
    with pytest.raises(PacelineError, match="delete the folder to start anew"):
        run(tmp_path)


def digest(lm: Decoder) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in lm.state_dict().values())).hexdigest()


def live(folder, pipe) -> None:
    """The life of a process that will be killed, or at last be left to end."""
    torch.set_num_threads(1)
    lm, _ = run(folder, 40, progress=lambda done, *_: pipe.send(done))
    pipe.send(digest(lm))


def test_kill_9_at_random_moments_changes_no_bit(tmp_path):
    context, moments = multiprocessing.get_context("forkserver"), random.Random(7)
    context.set_forkserver_preload(["paceline.race.cell"])

    def begin():
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=live, args=(tmp_path / "run", theirs), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    for _ in range(3):
        process, pipe = begin()
        for _ in range(moments.randrange(2, 9)):
            pipe.recv()
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process, pipe = begin()
    said = []
    with suppress(EOFError):
        while True:
            said.append(pipe.recv())
    process.join()
    assert process.exitcode == 0
    assert 1 < said[0] < said[-2] == 40
    assert said[-1] == digest(run(None, 40)[0])
