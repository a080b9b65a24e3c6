"""Text in a tokenizer's tokens."""

import math
import pickle
from pathlib import Path

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.data.text import Text
from paceline.data.token_text import TokenText, tokenise, vocabulary
from paceline.lm.byte_tokenizer import tokenizer_files

pytest.importorskip("tokenizers")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One whose token i is byte i."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    prepare([Document(f"{n}.txt", f"{n} é fox {n} dog. ".encode() * 60) for n in range(20)], tmp_path / "corpus")
    return tmp_path / "corpus"


def test_with_bytes_as_tokens_it_is_the_text_itself(tokenizer: Path, corpus: Path) -> None:
    task, text = TokenText(corpus, tokenizer, 32), Text(corpus, 32)
    assert vocabulary(tokenizer) == task.vocab_size == 256
    joined = bytes(text.corpus.train).replace(b"\0", b"")
    assert bytes(task.tokens("train").astype("uint8")) == joined
    logits = torch.randn(4, 32, 256)
    targets = task.sample(4, torch.Generator().manual_seed(0)).targets
    decoded = [len(bytes(row.tolist()).decode(errors="replace").encode()) for row in targets]
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(1)
    assert torch.allclose(task.score(logits, targets), expected / math.log(2) / torch.tensor(decoded))


def test_it_crosses_processes_and_draws_by_the_generator(tokenizer: Path, corpus: Path) -> None:
    task = TokenText(corpus, tokenizer, 16)
    twin = pickle.loads(pickle.dumps(task))
    one, other = (t.batch(3, seed=1, step=2) for t in (task, twin))
    assert torch.equal(one.ids, other.ids) and torch.equal(one.ids[:, 1:], one.targets[:, :-1])
    assert len(task.evaluation().ids) == task.items and "of 256 tokens" in task.describe()


def test_documents_are_apart_by_the_end_token_where_there_is_one(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    reader = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<end>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?"))
    reader.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    reader.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    assert tokenise(b"a b\0b", tmp_path).tolist() == [1, 2, 0, 2]


def test_what_cannot_be_read_is_refused(tokenizer: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(PacelineError, match=r"has no tokenizer\.json"):
        TokenText(corpus, tmp_path)
    with pytest.raises(PacelineError, match="too few for one window"):
        TokenText(corpus, tokenizer, 10**6)
    with pytest.raises(PacelineError, match="length=0 reads nothing"):
        TokenText(corpus, tokenizer, 0)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PacelineError, match="is broken"):
        vocabulary(tmp_path)
