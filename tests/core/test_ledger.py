"""Facts about the bill: what adds up, what is the largest, and that it survives JSON."""

import json

import pytest

from paceline.core.ledger import Ledger


def test_sums_add_what_accumulates_and_keep_the_largest_of_the_rest():
    one = Ledger(tokens=1, flops=2.0, seconds=3.0, model_calls=4, parameters=50, state_bytes=6, peak_bytes=70)
    two = Ledger(tokens=10, flops=20.0, seconds=30.0, model_calls=40, parameters=5, state_bytes=60, peak_bytes=7)
    both = Ledger(tokens=11, flops=22.0, seconds=33.0, model_calls=44, parameters=50, state_bytes=60, peak_bytes=70)
    assert one + two == two + one == both


def test_nothing_is_the_neutral_element_of_sum():
    bill = Ledger(tokens=3, parameters=5)
    assert bill + Ledger() == bill and sum([bill, bill], Ledger()) == Ledger(tokens=6, parameters=5)


def test_survives_json():
    bill = Ledger(tokens=3, flops=1e15, seconds=0.1, parameters=5)
    assert Ledger.from_dict(json.loads(json.dumps(bill.to_dict()))) == bill


def test_an_unknown_currency_is_an_error():
    with pytest.raises(TypeError):
        Ledger.from_dict({"euros": 1.0})
