"""How the verbs look: help with options in groups and examples, tables. At the top it imports click alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Decorate(Protocol):
    """What a decorator looks like: it hands back what it was given."""

    def __call__(self, function: Decorated, /) -> Decorated: ...


WIDTH = 100


class Option(click.Option):
    """An option that belongs to a group of the help.

    Attributes
    ----------
    group : str
        The heading under which it is listed.
    """

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Command(click.Command):
    """A command whose help lists options under the headings of their groups and ends with examples.

    Parameters
    ----------
    examples : sequence of str
        Command lines without ``stamp-deploy``, which a user can adapt.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        settings = kwargs.setdefault("context_settings", {})
        settings.setdefault("help_option_names", ["-h", "--help"])
        settings.setdefault("max_content_width", WIDTH)
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        # --help stands last, whatever else is in its group.
        groups["Options"] = groups.pop("Options", [])
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}stamp-deploy {example}\n")


def option(*names: str, group: str = "Options", **settings: Any) -> Decorate:
    """`click.option`, listed under `group`."""
    return click.option(*names, cls=Option, group=group, **settings)


def names_of(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """ "json, report" -> ("json", "report"): the `callback` of an option."""
    return split_names(text)


def split_names(text: str) -> tuple[str, ...]:
    """ "json, report" -> ("json", "report")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def together(*options: Decorate) -> Decorate:
    """Several options as one decorator, listed in the order in which they stand here."""

    def decorate(function: Decorated) -> Decorated:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[str] = ()) -> None:
    """Print rows of text under headings, those in `right` aligned to the right; never cut where it goes to a file."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
