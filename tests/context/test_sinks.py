"""Windows and sinks are full attention under a band mask, and repeatable from any piece."""

import pytest
import torch
from _lms import lean

from paceline.context.sinks import Sinks
from paceline.context.window import Window
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close


@pytest.mark.parametrize("policy", [Sinks(7, 3), Sinks(9, 0), Window(4), Sinks(2, 1)])
def test_it_is_attention_under_a_band_and_the_first_columns(policy: Sinks) -> None:
    lm = lean("llama")
    ids = torch.randint(11, (2, 25), generator=torch.Generator().manual_seed(0))
    at = torch.arange(25)
    band = at > at[:, None] - (policy.tokens - policy.sinks)
    mask = (at <= at[:, None]) & (band | (at < policy.sinks))
    expected, _ = lm(ids, None, mask=mask.expand(2, 1, 25, 25))
    assert mask.sum(1).max() == policy.tokens
    actual, state = lm.under(policy)(ids, None)
    assert close(actual, expected, torch.float64)
    assert all(layer["k"].shape[2] == policy.tokens - 1 for layer in state.layers)


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="no window"):
        Sinks(4, 4)
    with pytest.raises(PacelineError, match=r"Window: tokens must be a whole number of at least 1, not 0\."):
        Window(0)
