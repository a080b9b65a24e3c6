"""Facts about the text of four domains."""

import pickle

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data.domains import DOMAINS, Domains


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("domains")


@pytest.fixture(scope="module")
def task(folder):
    return Domains(folder, length=50)


def windows(batch):
    return [bytes([*ids, targets[-1]]) for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True)]


def sides(task):
    return {name: (bytes(text.corpus.train), bytes(text.corpus.heldout)) for name, text in task.texts.items()}


def test_each_sequence_is_of_one_domain_and_all_come_about_as_often(task):
    found, shared, texts = [], 0, sides(task)
    for window in (w for step in range(4) for w in windows(task.batch(64, 0, step))):
        homes = [name for name, (train, _) in texts.items() if window in train]
        assert homes
        shared += len(homes) > 1 or any(window in heldout for _, heldout in texts.values())
        found.append(homes[0])
    assert shared <= 12  # of 256: licences, rows of dashes and the like stand in many files
    assert all(30 < found.count(name) < 100 for name in DOMAINS)  # 64 on average: 5 standard deviations


def test_the_measure_takes_the_domains_in_turns(task):
    batch, texts = task.evaluation(), sides(task)
    assert batch.ids.shape == (128, 50)
    for item, window in enumerate(windows(batch)):
        assert window in texts[task.domain_of(item)][1]
    assert len(set(windows(batch))) == 128


def test_batches_are_decided_by_seed_and_step_alone(task, folder):
    twin = pickle.loads(pickle.dumps(Domains(folder, length=50)))
    for one, other in ((task.batch(8, 3, 5), twin.batch(8, 3, 5)), (task.evaluation(), twin.evaluation())):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.targets, other.targets)
        assert torch.equal(one.ids[:, 1:], one.targets[:, :-1])
    assert not any(torch.equal(task.batch(8, 3, 5).ids, task.batch(8, s, n).ids) for s, n in ((3, 6), (4, 5)))


def test_domains_are_of_about_the_same_size_and_differ(task):
    sizes = [len(text.corpus.train) for text in task.texts.values()]
    assert min(sizes) > 300_000 and max(sizes) < 1.3 * min(sizes)
    counts = torch.stack(
        [torch.bincount(torch.tensor(text.corpus.train).long(), minlength=256).float() for text in task.texts.values()]
    )
    shares = counts / counts.sum(1, keepdim=True)
    apart = [(shares[i] - shares[j]).abs().sum() / 2 for i in range(4) for j in range(i)]
    assert min(apart) > 0.1


def test_it_is_made_the_same_from_nothing(task, tmp_path):
    assert Domains(tmp_path, length=50).describe() == task.describe()
    assert task.describe().endswith(".") and len(task.describe()) < 250


def test_it_is_kept_in_the_cache_where_no_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    assert Domains().length == 128
    assert len(list(tmp_path.glob("domains-*/*/corpus.json"))) == 4


def test_a_length_without_sense_is_refused(folder):
    with pytest.raises(PacelineError, match="length=0 reads nothing"):
        Domains(folder, length=0)
