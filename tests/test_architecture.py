"""The house rules of DESIGN.md, read from the syntax tree: who imports whom, and what importing does."""

import ast
import functools
import graphlib
import importlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import paceline
from paceline.core.card import read_card
from paceline.core.discovery import FAMILIES, methods, part

PACKAGE = Path(paceline.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# DESIGN.md puts `lm` beside the mixers in tier 2; it stands on their contract, so it is a tier of its own between
# 2 and 3: it may import tiers 0 to 2, and what lies in tiers 3 and above may import it.
TIERS = {
    "core": 0,
    **dict.fromkeys(("blocks", "tokens", "data", "optim", "evaluate"), 1),
    **dict.fromkeys(
        ("mixers", "objectives", "flows", "adapt", "compress", "decode", "context", "retrieve", "parallel"), 2
    ),
    "lm": 2.5,
    **dict.fromkeys(("align", "prompt", "serve"), 3),
    "race": 4,
    "claims": 5,
    "cli": 6,
    "report": 1,  # beside the tiers: imports core alone
}
STATES = {"state", "growing", "stacked", "joint", "layered", "read_end"}
NEEDS_EXAMPLE = {
    "adapt", "align", "blocks", "compress", "context", "decode", "evaluate", "flows", "mixers", "objectives", "optim",
    "parallel", "prompt", "retrieve", "tokens",
}  # fmt: skip
FORBIDDEN_MODULES = {"cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("numpy", "load"), ("np", "load")}
FORBIDDEN_WORDS = {"trust_remote_code", "allow_pickle"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, deferred: bool = True) -> set[str]:
    """Names of the modules that a file imports; without `deferred`, only those that importing it imports."""
    module, found = name_of(path), set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = ".".join(filter(None, (above if node.level else "", node.module)))
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
        elif not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif not deferred and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
    return found


def folder_of(module: str) -> str:
    """`mixers` of `paceline.mixers.ema`; empty for the package itself."""
    return [*module.split("."), ""][1]


def top_level(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that starts, and has its home, in `folder`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "2",  # not 1, so that setting it to 1 shows
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@every_file
def test_a_folder_imports_only_lower_tiers(path):
    here = folder_of(name_of(path))
    if path.parent == PACKAGE:
        allowed = {"__init__": {"core", "lm"}, "__main__": {"cli"}}  # the first tells transformers of our models
        assert {folder_of(m) for m in imports(path) if m.startswith("paceline")} <= allowed[path.stem]
        return
    for module in imports(path):
        there = folder_of(module)
        if module.split(".")[0] != "paceline" or there in ("", here):
            continue
        assert there in TIERS, f"{there} has no tier"
        if here == "report":
            assert there == "core"
        elif there == "report":
            assert here in ("claims", "cli"), f"{here} must not import the report"
        else:
            assert TIERS[there] < TIERS[here], f"{here} (tier {TIERS[here]}) imports {module} (tier {TIERS[there]})"


def test_every_folder_has_a_tier():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders <= set(TIERS) and set(FAMILIES) <= set(TIERS)


def test_there_are_no_import_cycles():
    graph = {module: imports(path, deferred=False) & MODULES.keys() - {module} for module, path in MODULES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(MODULES) and len(MODULES) > 40


@pytest.mark.parametrize("path", [p for p in FILES if folder_of(name_of(p)) == "core"], ids=name_of)
def test_the_core_needs_torch_only_for_states_and_numpy_only_in_compiled_loops(path):
    heavy = {"torch", "numpy", "scipy", "jaxtyping", "matplotlib"} & top_level(path)
    loops = {"numpy"} if path.stem.endswith("_numba") else set()
    assert heavy <= ({"torch", "jaxtyping"} if path.stem in STATES else loops)


@every_file
def test_nothing_can_run_what_it_reads(path):
    """No pickle, no evaluation, no remote code: nobody's file can run anything here."""
    assert not FORBIDDEN_MODULES & top_level(path)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{node.func.id}() in line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in FORBIDDEN_ATTRIBUTES, f"{node.attr} in line {node.lineno}"
            assert node.value.id != "pickle" or node.attr == "PicklingError"  # to say what cannot cross to a process
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy", "pickle"):
            assert not {"load", "loads", "save", "dump", "dumps", "Unpickler"} & {alias.name for alias in node.names}
        if isinstance(node, ast.keyword):
            assert node.arg not in FORBIDDEN_WORDS, f"{node.arg} in line {node.value.lineno}"
            assert node.arg != "shell" or ast.literal_eval(node.value) is False
        assert not (isinstance(node, ast.Constant) and node.value in FORBIDDEN_WORDS)


@pytest.mark.parametrize("path", [p for p in FILES if folder_of(name_of(p)) == "race"], ids=name_of)
def test_the_race_knows_no_method_by_name(path):
    known = set(methods("mixers"))
    classes = {part("mixers", method).__name__ for method in known}
    for node in ast.walk(tree_of(path)):
        names = {getattr(node, field, None) for field in ("id", "attr", "arg", "name", "value")}
        named = {name for name in names if isinstance(name, str) and name in known | classes}
        assert not named, f"line {node.lineno} names {named}"


FAMILY_FILES = [(family, method) for family in FAMILIES for method in methods(family)]


@pytest.mark.parametrize(("family", "method"), FAMILY_FILES, ids=str)
def test_a_method_has_a_card_an_example_and_one_part(family, method):
    path = PACKAGE / family / f"{method}.py"
    card = read_card(path)
    assert len(card.summary) > 20
    assert all(paper.title and 1900 < paper.year < 2100 for paper in card.papers)
    classes = [n.name for n in tree_of(path).body if isinstance(n, ast.ClassDef)]
    functions = [n.name for n in tree_of(path).body if isinstance(n, ast.FunctionDef)]
    own = [name for name in classes if name.lower() == method.replace("_", "")]
    assert len(own) == 1 and part(family, method).__name__ == own[0]
    if family in NEEDS_EXAMPLE:
        assert "example" in functions


def test_importing_anything_has_no_side_effect(tmp_path):
    """Run in a folder of its own, one module after the other in one process."""
    code = f"""
import importlib, json, sys, warnings
import torch
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*click", category=DeprecationWarning)  # typer's own use of click
def facts():
    return [str(torch.get_default_dtype()), torch.get_num_threads(), torch.get_num_interop_threads(),
            torch.get_rng_state().sum().item(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
            str(torch.get_default_device()), torch.get_float32_matmul_precision()]
before, changed = facts(), []
for name in {sorted(name for name in MODULES if not name.endswith("__main__"))!r}:
    importlib.import_module(name)
    if facts() != before:
        changed.append(name)
        before = facts()
sys.stderr.write(json.dumps(changed))
"""
    done = run(code, tmp_path)
    assert done.stdout == "" and json.loads(done.stderr) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import paceline",
        "from paceline.core.discovery import cards; cards()",
        "import paceline.report",
        "import paceline.core.spec, paceline.core.card, paceline.core.files, paceline.core.ledger, paceline.core.seeds",
        "import paceline.core.tolerances",
        "import paceline.cli, paceline.cli.app",
    ],
)
def test_torch_is_not_imported_for(code, tmp_path):
    done = run(f"{code}\nimport sys\nprint([m for m in ('torch', 'scipy') if m in sys.modules])", tmp_path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "align", "select", "siblings"])
def test_only_races_pay_for_statistics(command, tmp_path):
    done = run(f"import paceline.cli.{command}, sys\nprint('scipy.stats' in sys.modules)", tmp_path)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", [p for p in FILES if folder_of(name_of(p)) == "report"], ids=name_of)
def test_the_report_needs_no_torch_even_deferred(path):
    assert not {"torch", "jaxtyping", "safetensors"} & top_level(path)


def test_files_are_short():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert statistics.median(lines.values()) <= 150
    assert {name_of(path): count for path, count in lines.items() if count > 500} == {}


def test_public_arguments_are_typed():
    typed, untyped = 0, []
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_") and node.name != "__init__":
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            given += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
            for argument in given:
                if argument.arg in ("self", "cls"):
                    continue
                if argument.annotation is None:
                    untyped.append(f"{name_of(path)}.{node.name}({argument.arg})")
                else:
                    typed += 1
    assert typed / (typed + len(untyped)) >= 0.95, untyped
    assert typed > 150


@every_file
def test_every_module_says_what_it_is(path):
    docstring = ast.get_docstring(tree_of(path))
    assert docstring and docstring.splitlines()[0].strip()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not name.endswith("__main__")))
def test_every_annotation_can_be_checked_at_run_time(name):
    """Tests import the house with beartype on every function (pyproject.toml), which refuses `Self`, for one."""
    assert importlib.import_module(name)
