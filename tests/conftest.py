"""Fixtures of all tests."""

from collections.abc import Iterator

import jaxtyping
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of the whole product first: they are few and long, and one that is left for the end keeps all waiting."""
    items.sort(key=lambda item: len(item.path.parts))


@pytest.fixture(scope="session", autouse=True)
def one_server() -> Iterator[None]:
    """All races of these tests get their cells from one server, which the first starts: it can open models, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paceline.race.pool.on_given_models", lambda cells: True)
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes go unchecked, for runs of many thousand calls: checking takes two thirds of their time.

    The same calls are checked elsewhere.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
