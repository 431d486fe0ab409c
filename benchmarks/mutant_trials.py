"""Tries mutants one by one in a copy of the checkout: `python benchmarks/mutant_trials.py JOB.json` there.

Libraries are loaded once; each trial is a fork of this process, which then imports the mutated package afresh. A
mutant is tried with the tests that ran its line in a first, unmutated run (a line that a fixture ran: with all tests
of that file; a line that runs at import or in other processes alone: with all tests that run anything of its function
or module). The quickest files come first, and the first failure ends a trial.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("numpy", "scipy.ndimage", "h5py", "PIL.Image", "tifffile", "openslide", "pydantic", "onnx", "pydicom"),
    *("highdicom", "pyarrow.parquet", "anndata", "pandas", "shapely", "matplotlib.figure", "rich.console", "torch"),
    *("zarr", "hypothesis.core", "hypothesis.strategies"),
)
"""Loaded before the first fork, where the tests load them, too. Not those that keep threads (pyvips), nor onnxruntime,
which the package must be imported before."""

TESTS_S = 6.0
"""Processor seconds of tests that are spent on a mutant at most, the quickest first: one that only slower tests would
notice counts as a survivor."""
CPU_FACTOR, CPU_SPARE_S, WALL_FACTOR, WALL_SPARE_S = 5.0, 10.0, 60.0, 300.0
"""A trial may take this many times what its tests took unmutated, and this much more. Processor time decides about
loops without end, so that other work on the machine does not; wall-clock time is for what waits for ever."""


@dataclass(eq=False)
class Watch:
    """A pytest plugin: keeps only the chosen tests, in order, and notes how long each computed and what failed."""

    chosen: list[str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    setup_seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    began: float = 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.chosen is not None:
            place = {name: at for at, name in enumerate(self.chosen)}
            items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.began = sum(os.times()[:4])

    def pytest_runtest_logreport(self, report: Any) -> None:
        now = sum(os.times()[:4])  # processor time, of children too: other work on the machine does not count
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + now - self.began
        if report.when == "setup":
            self.setup_seconds[report.nodeid] = now - self.began
        self.began = now
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def in_fork(arguments: list[str], chosen: list[str] | None, cpu_s: float, wall_s: float) -> dict[str, Any]:
    """Run pytest in a fork of this process; {"code", "failed", "seconds", "modules"}, code None: out of time."""
    answer = Path("trial.json").absolute()
    answer.unlink(missing_ok=True)
    shutil.rmtree("../scratch", ignore_errors=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        out = os.open("trial.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 1))
        import pytest

        watch = Watch(chosen)
        common = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp=../scratch"]
        code = int(pytest.main([*common, *arguments], plugins=[watch]))
        answer.write_text(
            json.dumps(
                {"code": code, "modules": sorted(set(sys.modules))}
                | {name: getattr(watch, name) for name in ("failed", "seconds", "setup_seconds")}
            )
        )
        sys.stdout.flush()
        os._exit(0)
    end = time.monotonic() + wall_s if wall_s else float("inf")
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):  # what the trial left running
        os.killpg(child, signal.SIGKILL)
    return dict(json.loads(answer.read_text())) if answer.exists() else {"code": None, "failed": "", "seconds": {}}


def enclosing(tree: ast.AST, line: int) -> tuple[ast.stmt | None, ast.AST]:
    """The innermost statement, and the innermost function (or the module), that hold a line."""
    statement: ast.stmt | None = None
    function: ast.AST = tree
    for node in ast.walk(tree):  # breadth first: inner ones come later
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            statement = node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and line >= node.body[0].lineno:
                function = node
    return statement, function


@dataclass
class Coverage:
    """Which tests ran which lines, and for how long they ran."""

    seconds: dict[str, float]
    setup_seconds: dict[str, float]
    contexts: dict[str, dict[int, list[str]]]  # module -> line -> "test|phase"
    ranks: dict[str, dict[str, float]] = field(default_factory=dict)

    def tests_of_lines(self, module: str, lines: Iterator[int] | range) -> set[str]:
        found: set[str] = set()
        for line in lines:
            for context in self.contexts[module].get(line, []):
                name, _, phase = context.rpartition("|")
                if phase == "setup":  # a fixture's work may be judged by each test of the file
                    file = name.split("::")[0]
                    found |= {test for test in self.seconds if test.split("::")[0] == file}
                elif name:
                    found.add(name)
        return found & set(self.seconds)

    def tests(self, module: str, source: str, line: int) -> list[str]:
        """The tests that must notice a mutant of a line, quickest file first."""
        tree = ast.parse(source)
        statement, function = enclosing(tree, line)
        found: set[str] = set()
        if not isinstance(function, ast.Module) and statement is not None:
            found = self.tests_of_lines(module, range(statement.lineno, line + 1))
            if not found:
                found = self.tests_of_lines(module, range(function.lineno, (function.end_lineno or line) + 1))  # type: ignore[attr-defined]
        if not found:  # at import: also those that are refused by a signature, and run nothing of the module
            ran = {test.split("::")[0] for test in self.tests_of_lines(module, range(1, source.count("\n") + 2))}
            found = {test for test in self.seconds if test.split("::")[0] in ran} or set(self.seconds)
        files: dict[str, float] = {}
        for test in found:
            file = test.split("::")[0]
            files[file] = files.get(file, 0.0) + self.seconds[test]
        ordered = sorted(found, key=lambda test: (files[test.split("::")[0]], test.split("::")[0], self.rank(test)))
        spent = itertools.accumulate(self.seconds[test] for test in ordered)
        return [test for test, until in zip(ordered, spent, strict=True) if until <= TESTS_S] or ordered[:1]

    def rank(self, test: str) -> float:
        """A test's place in its file: the quickest first, or the file's own order where fixtures are shared."""
        file = test.split("::")[0]
        if file not in self.ranks:
            mine = {name: at for at, name in enumerate(self.seconds) if name.split("::")[0] == file}
            shared = sum(self.setup_seconds[name] for name in mine) > 0.2 * sum(self.seconds[name] for name in mine)
            self.ranks[file] = dict(mine) if shared else {name: self.seconds[name] for name in mine}
        return self.ranks[file][test]


def first_run(modules: list[str], tests: list[str]) -> Coverage:
    """Run all tests unmutated, under coverage; they must pass."""
    from coverage import CoverageData

    Path("trial.coveragerc").write_text("[run]\ndata_file = trial.coverage\ninclude =\n    " + "\n    ".join(modules))
    options = ["--cov", "--cov-config=trial.coveragerc", "--cov-context=test", "--cov-report=", "-p", "pytest_cov"]
    done = in_fork([*options, *tests], None, 0, 0)
    if done["code"] != 0:
        raise SystemExit(f"the tests fail without a mutant:\n{Path('trial.log').read_text()[-3000:]}")
    data = CoverageData("trial.coverage")
    data.read()
    contexts = {module: data.contexts_by_lineno(str(Path(module).absolute())) for module in modules}
    loaded = set(done["modules"])
    for library in LIBRARIES:
        if library in loaded:
            importlib.import_module(library)
    return Coverage(done["seconds"], done["setup_seconds"], contexts)


def forget_bytecode(module: str) -> None:
    """Its compiled form is known by size and second alone: a mutant of the same length would not be read."""
    path = Path(module)
    for cached in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        cached.unlink()


def main() -> None:
    """Job: {"modules", "tests", "mutants": [{"module", "line", "code", ...}]}; each mutant gets "outcome" and "by"."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    coverage = first_run(job["modules"], job["tests"])
    for number, mutant in enumerate(job["mutants"], 1):
        module = Path(mutant["module"])
        source = module.read_text()
        chosen = coverage.tests(mutant["module"], source, mutant["line"])
        files = list(dict.fromkeys(test.split("::")[0] for test in chosen))
        usual_s = sum(coverage.seconds[test] for test in chosen)
        forget_bytecode(mutant["module"])
        module.write_text(mutant["code"])
        try:
            done = in_fork(files, chosen, usual_s * CPU_FACTOR + CPU_SPARE_S, usual_s * WALL_FACTOR + WALL_SPARE_S)
        finally:
            module.write_text(source)
        del mutant["code"]
        outcome = {None: "out of time", 0: "survived"}.get(done["code"], "noticed")
        mutant.update(outcome=outcome, by=done["failed"], tests=len(chosen))
        print(f"{number}/{len(job['mutants'])} {module}:{mutant['line']} {outcome} {done['failed']}", flush=True)
        path.write_text(json.dumps(job))


if __name__ == "__main__":
    main()
