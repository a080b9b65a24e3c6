"""What every adapter promises: the base at init, gradients in what it chose alone, merged like unmerged, and back."""

import copy

import pytest
import torch
from _foreign import foreign
from _tiny import model
from torch import nn
from torch.nn import functional

from paceline.adapt._contract import Adapter, trainable
from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close, tolerance
from paceline.lm.adapted import Foreign
from paceline.lm.decoder import Decoder

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
KINDS = ["attention", "ema", "lightning", "hybrid", "llama", "gpt2", "mamba"]
IDS = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(0))
every = pytest.mark.parametrize("method", methods("adapt"))


def examples(method: str) -> list[Adapter]:
    return load("adapt", method).example()


def base(kind: str) -> tuple[Decoder, nn.Module]:
    """One of Paceline's models, or of Hugging Face's: as the loop has it, and as the adapter has it."""
    if kind in ("llama", "gpt2", "mamba"):
        inner = foreign(kind).model.train()
        return Foreign(inner), inner
    ours = model(kind).double()
    return ours, ours


def fits(adapter: Adapter, inner: nn.Module) -> bool:
    """Whether the model has what is adapted: a refusal is one sentence, and leaves what is asked for."""
    try:
        adapter.apply(copy.deepcopy(inner))
    except PacelineError as error:
        assert str(error).endswith(".") and "has no" in str(error)
        return False
    return True


def learn(model: Decoder, steps: int = 3) -> None:
    model.train()
    chosen = list(trainable(model).values())
    optimizer = torch.optim.AdamW(chosen, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model.logits(IDS).flatten(0, 1), IDS.roll(-1, 1).flatten()).backward()
        optimizer.step()


def said(model: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().logits(IDS).double()


@every
@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_base_and_says_what_it_covers(method: str, kind: str) -> None:
    for adapter in examples(method):
        model, inner = base(kind)
        if not fits(adapter, inner):
            continue
        whole, before = sum(p.numel() for p in inner.parameters()), said(model)
        coverage = adapter.apply(inner)
        assert close(said(model), before, torch.float32)
        assert coverage.covered and len(set(coverage.covered)) == len(coverage.covered)
        assert not set(coverage.covered) & set(coverage.bare) and 0 < coverage.share <= 1
        assert coverage.trained == sum(p.numel() for p in trainable(inner).values()) and coverage.whole == whole


@every
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_in_what_it_chose_and_in_all_of_it(method: str, kind: str) -> None:
    for adapter in examples(method):
        model, inner = base(kind)
        if not fits(adapter, inner):
            continue
        adapter.apply(inner)
        frozen = {name: p.detach().clone() for name, p in inner.named_parameters() if not p.requires_grad}
        before = {name: p.detach().clone() for name, p in trainable(inner).items()}
        learn(model)
        assert all(torch.equal(p, frozen[name]) for name, p in inner.named_parameters() if name in frozen)
        still = [name for name, p in trainable(inner).items() if torch.equal(p, before[name])]
        assert not still, f"in {kind}, {method} does not reach {still}"


@every
@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_unmerged_and_finished_is_plain(method: str, kind: str) -> None:
    for adapter in examples(method):
        model, inner = base(kind)
        if not fits(adapter, inner):
            continue
        names, before = set(inner.state_dict()), said(model)
        adapter.apply(inner)
        learn(model)
        learned = said(model)
        assert (learned - before).abs().max() > tolerance(torch.float32)
        adapter.merge(inner)
        adapter.merge(inner)  # once more changes nothing
        assert close(said(model), learned, torch.float32)
        adapter.unmerge(inner)
        assert close(said(model), learned, torch.float32)
        adapter.finish(inner)
        assert set(inner.state_dict()) == names and close(said(model), learned, torch.float32)


@every
@pytest.mark.parametrize("kind", ["hybrid", "gpt2"])
def test_what_is_saved_loads_back(method: str, kind: str, tmp_path) -> None:
    for number, adapter in enumerate(examples(method)):
        model, inner = base(kind)
        if not fits(adapter, inner):
            continue
        adapter.apply(inner)
        learn(model)
        adapter.save(inner, tmp_path / str(number), prefix="model.", base="somewhere")
        assert not [path for path in (tmp_path / str(number)).iterdir() if path.suffix not in (".json", ".safetensors")]
        again, other = base(kind)
        coverage = examples(method)[0].load(other, tmp_path / str(number), prefix="model.")
        assert close(said(again), said(model), torch.float32) and coverage.covered
        with pytest.raises(PacelineError, match=r"does not fit|fits nothing|has no"):
            examples(method)[0].load(base("attention" if kind == "gpt2" else "llama")[1], tmp_path / str(number))
        with pytest.raises(PacelineError, match="give a folder"):
            examples(method)[0].load(base(kind)[1], tmp_path / "nowhere")


@every
def test_what_cannot_be_adapted_is_refused(method: str) -> None:
    from paceline.compress.int8 import Int8

    for adapter in examples(method):
        with pytest.raises(PacelineError, match="8 bits or fewer"):
            adapter.apply(Int8().apply(model("attention")))
        with pytest.raises(PacelineError, match=r"has no|fits nothing"):
            adapter.apply(nn.Identity())


@every
def test_rates_are_as_many_for_all_and_meters_are_shares(method: str) -> None:
    for adapter in examples(method):
        assert len(adapter.rates) == 3 and list(adapter.rates) == sorted(adapter.rates)
        model, inner = base("attention")
        if fits(adapter, inner):
            adapter.apply(inner)
            learn(model)
            assert all(0 < value <= 1 for value in adapter.meters(inner).values())
