"""Facts about training states on disk: the newest whole one counts, two are kept."""

import shutil

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import load_training, save_training

FILES = ["training.json", "training.safetensors", "checksums.json"]


def put(folder, step):
    save_training(folder, step, {"x": torch.full((5,), float(step))}, {"curve": [[step, 0.5]]})


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def newest(folder):
    tensors, facts = load_training(folder)
    assert facts["curve"] == [[facts["step"], 0.5]]
    assert torch.equal(tensors["x"], torch.full((5,), float(facts["step"])))
    return facts["step"]


def test_no_folder_is_no_state(tmp_path):
    assert load_training(tmp_path / "none") is None


def test_two_states_are_kept(tmp_path):
    for step in (9, 10, 100, 1000):
        put(tmp_path, step)
    assert steps(tmp_path) == ["step-0000000100", "step-0000001000"]
    assert newest(tmp_path) == 1000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [damage, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, name, harm):
    put(tmp_path, 1)
    put(tmp_path, 2)
    harm(tmp_path / "step-0000000002" / name)
    assert newest(tmp_path) == 1


def test_all_damaged_is_a_sentence(tmp_path):
    for step in (1, 2):
        put(tmp_path, step)
        damage(tmp_path / f"step-{step:010d}" / "training.safetensors")
    with pytest.raises(PacelineError, match=r"Every checkpoint in .* is damaged") as caught:
        load_training(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_later_state_does_not_take_the_place_of_a_whole_one(tmp_path):
    put(tmp_path, 10)
    put(tmp_path, 20)
    damage(tmp_path / "step-0000000020" / "training.json")
    assert newest(tmp_path) == 10
    put(tmp_path, 15)
    assert steps(tmp_path) == ["step-0000000010", "step-0000000015"]
    damage(tmp_path / "step-0000000015" / "training.json")
    assert newest(tmp_path) == 10


def test_what_a_killed_save_left_is_swept_away(tmp_path):
    put(tmp_path, 1)
    shutil.copytree(tmp_path / "step-0000000001", tmp_path / ".step-0000000002.abcdefg")
    assert newest(tmp_path) == 1
    put(tmp_path, 2)
    assert steps(tmp_path) == ["step-0000000001", "step-0000000002"]


def test_a_state_may_be_written_again(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    damage(tmp_path / "step-0000000002" / "training.json")
    put(tmp_path, 2)
    assert newest(tmp_path) == 2
