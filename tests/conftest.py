"""Fixtures of all tests."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes go unchecked, for runs of many thousand calls: checking takes two thirds of their time.

    The same calls are checked elsewhere.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
