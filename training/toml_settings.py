"""Settings that people write in TOML: checked models whose fields carry their reasons; errors name the nearest key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stamp_deploy.errors import UsageError
from stamp_deploy.system.files import refuse_special

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else tuple(v) if v else ())]
"""A list of texts; a single text is a list of one."""
Numbers = Annotated[tuple[float, ...], BeforeValidator(lambda v: tuple(float(x) for x in v) if _all_numbers(v) else v)]
"""A list of numbers, whole ones included."""


def setting(default: Any, reason: str, **limits: Any) -> Any:
    """A field with its default, the reason for it, and limits as pydantic names them (ge, gt, le)."""
    return Field(default=default, description=reason, **limits)


def _all_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(x) in (int, float) for x in value)


class TomlSettings(BaseModel):
    """A frozen record of settings.

    Attributes
    ----------
    noun : str
        What a key is called in messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    noun: ClassVar[str] = "setting"

    @classmethod
    def checked(cls, values: Mapping[str, Any], source: Path | None = None, *, owner: str = "") -> Self:
        """The settings in `values`.

        Parameters
        ----------
        source : Path, optional
            The file, for messages.
        owner : str
            Whose settings they are, for messages.

        Raises
        ------
        UsageError
            An unknown key, a value of the wrong type or out of range, or a choice that does not exist.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        cause, remedy = cls._explain(first)
        raise UsageError(f"{owner}: {cause}" if owner else cause, path=source, remedy=remedy)

    @classmethod
    def _explain(cls, error: Mapping[str, Any]) -> tuple[str, str]:
        """The cause and the remedy of one of pydantic's errors."""
        key, value, kind, context = str(error["loc"][0]), error["input"], str(error["type"]), error.get("ctx", {})
        if kind == "extra_forbidden":
            return f"unknown {cls.noun} {key}", nearest(key, cls.model_fields, f"{cls.noun}s")
        if kind == "missing":
            return f"{key} is not stated", f"add {key}"
        if len(error["loc"]) > 1:  # an item of a list
            return f"{key} holds {value!r}, which is of the wrong type", "write texts in quotes"
        field = cls.model_fields[key]
        if kind == "literal_error":
            choices = [str(c) for c in field.annotation.__args__]  # type: ignore[union-attr]
            return f"{key} = {value!r} does not exist", nearest(str(value), choices, "choices")
        if "ge" in context:
            least = context["ge"]
            return f"{key} = {value!r} " + ("must not be negative" if not least else f"must be {least:g} or more"), ""
        if context.get("gt") == 0:
            return f"{key} = {value!r} is not a positive number", ""
        limit = str(error["msg"]).removeprefix("Input should be ")
        if "gt" in context or "le" in context:
            return f"{key} = {value!r} is not possible: it must be {limit}", ""
        wanted, example = type(field.default).__name__, f"such as {_plain(field.default)!r}"
        if field.default is None or field.is_required():
            wanted, example = limit.removeprefix("a valid "), ""
        return f"{key} = {value!r} is of the wrong type: not a {wanted}", example

    def with_(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked again."""
        return self.checked({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {key: _plain(value) for key, value in self}

    def to_toml(self, *, reasons: bool = False) -> str:
        """The settings as TOML; `checked(tomllib.loads(...))` gives them back. With `reasons`, as comments too."""
        lines = []
        for key, value in self.to_dict().items():
            first, *rest = tomli_w.dumps({key: value}).splitlines()
            why = type(self).model_fields[key].description or ""
            lines += [f"{first:<34} # {why}" if reasons and why else first, *rest]
        return "\n".join(lines) + "\n"


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """A TOML file.

    Raises
    ------
    UsageError
        There is no such file (then with `remedy`), it cannot be read, or is no TOML.
    """
    refuse_special(path, UsageError)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UsageError("does not exist", path=path, remedy=remedy) from error
    except IsADirectoryError as error:
        raise UsageError("is a folder, not a TOML file", path=path, remedy=remedy) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise UsageError("cannot be read as TOML: it is not UTF-8", path=path, remedy="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"cannot be read as TOML: {error}", path=path, remedy="correct that line") from error


def nearest(key: str, known: Iterable[str], noun: str) -> str:
    """A remedy for a name that does not exist: the nearest that does, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(key.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if close:
        match: Callable[[str], bool] = lambda name: name.lower() == close[0]  # noqa: E731
        return f"did you mean {next(filter(match, names))}?"
    return f"{noun}: " + ", ".join(n or '""' for n in names)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
