"""Something to do once another package is imported, without importing it: what it costs is paid by who uses it.

Every `import paceline` passes here, so it imports little itself: `importlib.abc` alone would cost 20 ms.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(module: str, call: Callable[[], None]) -> None:
    """Call once `module` has been imported, at once where it is already."""
    if module in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Watch(module, call))  # type: ignore[arg-type]


class _Watch:
    """Finds nothing itself; lets others find the module and adds the call to what loads it."""

    def __init__(self, module: str, call: Callable[[], None]) -> None:
        self.module, self.call = module, call

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_call(loaded: ModuleType) -> None:
            run(loaded)
            self.call()

        spec.loader.exec_module = run_and_call  # type: ignore[method-assign,assignment]
        return spec
