"""Adapters that train the model's own numbers: which they choose."""

import pytest
from _foreign import foreign
from _tiny import model

from paceline.adapt.full_finetuning import FullFinetuning
from paceline.adapt.last_layers import LastLayers
from paceline.core.errors import PacelineError


def test_full_fine_tuning_trains_everything():
    ours = model("hybrid")
    coverage = FullFinetuning().apply(ours)
    assert coverage.trained == coverage.whole == sum(p.numel() for p in ours.parameters())
    assert coverage.bare == () and coverage.trained_share == 1


@pytest.mark.parametrize(("kind", "prefix"), [("hybrid", "layers.2."), ("llama", "model.layers.1.")])
def test_the_last_layer_is_the_last(kind, prefix):
    part = model(kind) if kind == "hybrid" else foreign(kind).model
    coverage = LastLayers(layers=1).apply(part)
    assert coverage.covered and all(name.startswith(prefix) for name in coverage.covered)
    assert all(p.requires_grad == name.startswith(prefix) for name, p in part.named_parameters())


def test_more_layers_than_there_are_or_none_are_refused():
    with pytest.raises(PacelineError, match="has 3 layers, fewer than layers=4"):
        LastLayers(layers=4).apply(model("hybrid"))
    with pytest.raises(PacelineError, match="at least 1 layer, not 0"):
        LastLayers(layers=0)
