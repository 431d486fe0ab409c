"""Who may import whom: every import of the source is read, inside functions too, and an upward one fails.

The floors are the ones of the package's design: slide -> tissue -> grid -> tiles -> engine -> maps / heads -> result ->
writers. A module imports its own floor and those below. The run time never imports torch, training or export, never
unpickles and never talks to a network.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"stamp_deploy": ROOT / "stamp_deploy", "training": ROOT / "training", "export": ROOT / "export"}

FLOORS: dict[str, int] = {
    name: floor
    for floor, names in enumerate(
        (
            "codecs command errors hashing html_page pathway_names ranks spread system units validation",
            "atomic bundle config map_style provenance tables",
            "_tiler slide",
            "absence annotations engine gallery grid summaries tiles tissue trust",
            "assemble gallery_tiles heads judge_slide maps prepare result result_files result_parts "
            "score summarise timing where",
            "cases comparison fhir writers",
            "api archive batch checks infer viewer",
            "verbs",
            "cli",
        )
    )
    for name in names.split()
}
"""Floor of each module or folder of stamp_deploy."""

HIGHEST_FOR_TRAINING = 3
_LEARNING = "torch torchvision timm peft transformers accelerate huggingface_hub webdataset training export"
_UNPICKLING = "pickle cPickle dill cloudpickle joblib shelve marshal"
_NETWORK = (
    "urllib http requests httpx aiohttp urllib3 ftplib smtplib telnetlib xmlrpc socketserver websockets grpc asyncio"
)
ARCHIVE = "httpx pynetdicom python_multipart"
"""What talks to archives: only stamp_deploy.archive imports it, and only verbs for archives import that."""
VERBS_OF_ARCHIVES = {"verbs.dicomweb", "verbs.archive_options", "verbs.dimse"}
NEVER_AT_RUN_TIME = frozenset(f"{_LEARNING} {_UNPICKLING} {_NETWORK} {ARCHIVE}".split())
NETWORK_WHEN_ASKED: dict[str, set[str]] = {
    "engine.triton_http": {"http.client", "urllib.parse"},  # `--engine triton --url`
    "viewer.server": {"http.server", "socketserver", "urllib.parse"},  # `view` listens, and asks nobody
    "viewer.app": {"urllib.parse"},
}
"""Modules whose option names the server that they speak to, and what they may import for it."""
LOCAL_SOCKETS = {
    "batch.records.holder": {"gethostname"},
    "batch.workers.process": {"socketpair"},
    "batch.workers.worker": {"socket"},
    "batch.workers.ray": {"gethostname"},
    "viewer.server": {"AF_INET6"},
}
"""The only uses of the module socket: the host's name, and the pipe between a worker and its parent."""


@cache
def modules(package: str) -> tuple[tuple[str, ast.Module], ...]:
    """(dotted name without the package, syntax tree) of each module."""
    folder = PACKAGES[package]
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts if parts[-1] != "__init__" else parts[:-1])
        found.append((name, ast.parse(path.read_text(), str(path))))
    return tuple(found)


def imports(package: str, name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported at run time; `if TYPE_CHECKING` blocks do not count."""
    here = (package, *name.split(".")) if name else (package,)
    is_package = (PACKAGES[package].joinpath(*here[1:]) / "__init__.py").is_file()
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(ast.Module(node.body, []))
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level + is_package]
                yield from _from(package, node, base)
            else:
                yield node.lineno, node.module or ""
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def _from(package: str, node: ast.ImportFrom, base: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    # training and export install as stamp_deploy.training and stamp_deploy.export: .. is stamp_deploy there
    above = base if base else ("stamp_deploy",)
    module = ".".join((*above, *(node.module or "").split("."))).rstrip(".")
    if node.module:
        yield node.lineno, module
    else:
        yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def floor_of(module: str) -> int | None:
    """Floor of a dotted name inside stamp_deploy; None for the package itself and names that it defines."""
    first = module.split(".")[0] if module else ""
    if first in ("", "__version__"):
        return None
    assert first in FLOORS, f"stamp_deploy.{first} has no floor: add it to FLOORS in {Path(__file__).name}"
    return FLOORS[first]


def test_every_module_has_a_floor() -> None:
    for name, _ in modules("stamp_deploy"):
        assert name == "" or floor_of(name) is not None


def test_nothing_is_imported_upwards() -> None:
    upward = []
    for name, tree in modules("stamp_deploy"):
        own = floor_of(name)
        for line, target in imports("stamp_deploy", name, tree):
            package, _, inner = target.partition(".")
            other = floor_of(inner) if package == "stamp_deploy" else None
            if own is not None and other is not None and other > own:
                upward.append(f"{name}:{line} (floor {own}) imports {inner} (floor {other})")
    assert upward == []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected groups of two modules or more."""
    groups = networkx.strongly_connected_components(networkx.DiGraph(graph))
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    """Imports inside functions count too: they hide a circle, they do not break it."""
    prefix = "stamp_deploy" if package == "stamp_deploy" else f"stamp_deploy.{package}"
    names = {f"{prefix}.{name}".rstrip("."): tree for name, tree in modules(package)}
    graph: dict[str, set[str]] = {}
    for name, tree in modules(package):
        own = f"{prefix}.{name}".rstrip(".")
        graph[own] = set()
        for _, target in imports(package, name, tree):
            full = target if target.startswith("stamp_deploy") else f"stamp_deploy.{target}"
            while full not in names and "." in full:
                full = full.rpartition(".")[0]
            is_own_package = own.startswith(f"{full}.")
            if full in names and full != own and not is_own_package:
                graph[own].add(full)
    assert cycles(graph) == []


def test_the_finder_of_circles_finds_one() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


NEVER = (
    ("engine", ("slide", "tiles", "grid")),
    ("writers", ("infer", "slide", "tiles", "prepare", "score")),
    ("slide", ("tiles",)),
    ("tiles.jpeg_reader", ("tiles.source",)),
    ("tiles.region_reader", ("tiles.source",)),
    ("tiles.reader", ("tiles.source", "tiles.jpeg_reader", "tiles.region_reader")),
)


@pytest.mark.parametrize(("who", "whom"), NEVER)
def test_who_never_imports_whom(who: str, whom: tuple[str, ...]) -> None:
    found = []
    for name, tree in modules("stamp_deploy"):
        if name == who or name.startswith(f"{who}."):
            for line, target in imports("stamp_deploy", name, tree):
                inner = target.removeprefix("stamp_deploy.")
                if any(inner == other or inner.startswith(f"{other}.") for other in whom):
                    found.append(f"{name}:{line} imports {target}")
    assert found == []


def test_nothing_but_the_command_line_imports_the_verbs() -> None:
    found = []
    for package in PACKAGES:
        for name, tree in modules(package):
            if package == "stamp_deploy" and (name == "cli" or name.split(".")[0] == "verbs"):
                continue
            for line, target in imports(package, name, tree):
                if target.startswith("stamp_deploy.verbs"):
                    found.append(f"{package}.{name}:{line} imports {target}")
    assert found == []


def test_the_run_time_has_no_torch_no_pickle_and_no_network() -> None:
    found = []
    for name, tree in modules("stamp_deploy"):
        for line, target in imports("stamp_deploy", name, tree):
            parts = target.split(".")
            if target in NETWORK_WHEN_ASKED.get(name, ()):
                continue
            if name.startswith("archive.") and (parts[0] in ARCHIVE.split() or target == "urllib.parse"):
                continue
            if parts[0] in NEVER_AT_RUN_TIME or parts[:2] in (["stamp_deploy", "training"], ["stamp_deploy", "export"]):
                found.append(f"{name}:{line} imports {target}")
    assert found == []


def test_only_their_own_verbs_reach_archives() -> None:
    found, users = [], set()
    for package in PACKAGES:
        for name, tree in modules(package):
            if package == "stamp_deploy" and name.split(".")[0] == "archive":
                continue
            for line, target in imports(package, name, tree):
                if f"{target}.".startswith("stamp_deploy.archive."):
                    users.add(name)
                    if package != "stamp_deploy" or name not in VERBS_OF_ARCHIVES:
                        found.append(f"{package}.{name}:{line} imports {target}")
    assert found == []
    assert "verbs.dicomweb" in users, "the test sees none of the imports"


def test_only_the_verb_view_reaches_the_viewer() -> None:
    users = {
        name
        for package in PACKAGES
        for name, tree in modules(package)
        for _, target in imports(package, name, tree)
        if f"{target}.".startswith("stamp_deploy.viewer.") and not name.startswith("viewer")
    }
    assert users == {"verbs.view"}


def test_scoring_loads_nothing_that_talks_to_a_network() -> None:
    code = "import sys, stamp_deploy.infer, stamp_deploy.batch.watch, stamp_deploy.api, stamp_deploy.verbs.batch;"
    code += f"print(sorted(set({ARCHIVE.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sockets_are_local_pipes_only() -> None:
    for name, tree in modules("stamp_deploy"):
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "socket"
        }
        assert used <= LOCAL_SOCKETS.get(name, set()), name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "socket.socket":
                assert [keyword.arg for keyword in node.keywords] == ["fileno"], f"{name}:{node.lineno} opens a socket"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", f"{name}:{node.value.lineno} reads pickles"


def test_training_stands_on_the_lower_floors() -> None:
    found = []
    for name, tree in modules("training"):
        for line, target in imports("training", name, tree):
            package, _, inner = target.partition(".")
            if package == "export" or target.startswith("stamp_deploy.export"):
                found.append(f"training.{name}:{line} imports {target}")
            if package == "stamp_deploy" and inner.split(".")[0] != "training":
                floor = floor_of(inner)
                if floor is not None and floor > HIGHEST_FOR_TRAINING:
                    found.append(f"training.{name}:{line} imports {target} of floor {floor}")
    assert found == []


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("def f():\n    import torch", "torch"),
        ("from .slide import Slide", "stamp_deploy.slide"),
        ("from . import tiles", "stamp_deploy.tiles"),
        ("from .writers.names import x", "stamp_deploy.writers.names"),
        ("import importlib\nimportlib.import_module('pickle')", "pickle"),
        ("class A:\n    def f(self):\n        from urllib.request import urlopen", "urllib.request"),
    ],
)
def test_the_reader_of_imports_sees_them_all(source: str, want: str) -> None:
    assert want in {target for _, target in imports("stamp_deploy", "infer", ast.parse(source))}


def test_imports_for_type_checkers_do_not_count() -> None:
    tree = ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import timm")
    targets = {target for _, target in imports("stamp_deploy", "infer", tree)}
    assert "torch" not in targets
    assert "timm" in targets
