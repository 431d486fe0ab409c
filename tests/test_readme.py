"""The README and the documentation name commands, options, targets and files that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stamp_deploy.cli import cli
from stamp_deploy.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:\S*/)?(stamp-deploy .+)$|(?<!`)`(stamp-deploy [^`]+)`(?!`)", re.MULTILINE)


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command line that a page shows."""
    for indented, inline in COMMAND.findall(page.read_text().replace("\\\n", " ")):
        line = (indented or inline).split(" # ")[0].split("   ")[0]
        for part in re.split(r"&&|;|\|(?= )", line):
            words = shlex.split(re.sub(r"[\[\]<>]|\.\.\.|…", " ", part))
            if words and words[0].rsplit("/", 1)[-1] == "stamp-deploy":
                yield words


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line names, and the words after it."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest[0])
        if inner is None:
            break
        command, rest = inner, rest[1:]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        verb = words[1] if len(words) > 1 else ""
        if not verb or verb.isupper():
            continue  # "stamp-deploy VERB" stands for any
        command, rest = resolve(words)
        assert command is not cli or verb.startswith("-"), f"{page.name}: no verb {verb!r}: {' '.join(words)}"
        known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
        known |= {"-h", "--help"}
        for word in rest:
            if word.startswith("-") and not re.fullmatch(r"-?[\d.]+", word):
                assert word.split("=")[0] in known, f"{page.name}: {verb} has no {word}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_hold(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", page.read_text())
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^ {4}make ([a-z-]+)|`make ([a-z-]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= targets


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    assert {int(code) for code in ExitCode} <= {int(row) for row in rows}
