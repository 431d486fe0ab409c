"""A look into an ONNX file before any runtime parses it.

A hostile ONNX file can name external data outside the bundle (``../../etc/passwd``), point past the end of
its data, load custom operators, run without end, or declare other shapes than the bundle does. This walks the
protobuf wire format itself (field numbers from onnx.proto, IR version 3 and later) with a bound on everything, and
needs neither the onnx package nor a runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ..errors import BundleError
from .rules import REMEDY

MAX_DEPTH = 32
MAX_MESSAGES = 4_000_000
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib"})
ELEMENT_TYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 16: "bfloat16"}

Operator = tuple[str, str]
"""Domain and name; the standard domain is the empty one."""

Dim = int | str | None
"""A fixed size, a symbolic name, or nothing stated."""

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION = (
    "model", "graph", "node", "attribute", "tensor", "sparse", "function",
)  # fmt: skip
_TRAINING = "training"
# message -> field number -> message inside it. Everything else is skipped, not descended into.
_CHILDREN: dict[str, dict[int, str]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {},
}


@dataclass(frozen=True)
class ExternalData:
    """One tensor kept outside the ONNX file: where, and which bytes."""

    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output: its name, element type and shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None


@dataclass
class OnnxFacts:
    """What `scan` found."""

    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    external: list[ExternalData] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)
    branching: set[str] = field(default_factory=set)
    """Operators that hold graphs of their own, such as Loop, Scan and If."""
    functions: dict[Operator, set[Operator]] = field(default_factory=dict)
    """Functions that the model defines, and what each calls."""
    opset: int = 0


def scan(data: bytes, path: Path) -> OnnxFacts:
    """Walk the bytes of an ONNX file; `path` is for messages.

    Raises
    ------
    BundleError
        The bytes are not a well-formed ONNX protobuf.
    """
    facts = OnnxFacts()
    if not data:
        _fail("the ONNX file is empty", path)
    walker = _Walker(data, path, facts)
    walker.message(_MODEL, 0, len(data), 0)
    if not facts.inputs or not facts.outputs:
        _fail("the ONNX file declares no graph", path)
    return facts


def check_external(path: Path, facts: OnnxFacts, listed: Mapping[Path, int]) -> None:
    """Refuse external data that is not a listed file beside the model, or runs past that file's end.

    Parameters
    ----------
    listed : mapping of Path to int
        The files of the bundle and their sizes in bytes.

    Raises
    ------
    BundleError
        See above; also for operators of a domain that is not allowed, for control flow (a loop can run without end),
        and for functions that call functions (a few of them can unfold into billions of operators).
    """
    for item in facts.external:
        parts = item.location.replace("\\", "/").split("/")
        target = path.parent / item.location
        if item.location.startswith("/") or ".." in parts or {"", "."} & set(parts) or target not in listed:
            _fail(
                f"external data points at {item.location[:60]!r}, which is not a listed file of the bundle",
                path,
            )
        size = listed[target]
        end = item.offset + (item.length if item.length is not None else 0)
        if item.offset < 0 or (item.length is not None and item.length < 0) or end > size:
            _fail(f"external data runs past the end of {target.name}", path)
    foreign = sorted(facts.domains - ALLOWED_DOMAINS)
    if foreign:
        _fail(f"the model wants operators of the domain {foreign[0][:60]!r}", path)
    if facts.branching:
        names = ", ".join(sorted(name[:40] for name in facts.branching)[:3])
        _fail(f"the model holds control flow ({names}), which could run without end", path, _REMEDY_FLAT)
    for (_, name), called in facts.functions.items():
        if called & facts.functions.keys():
            _fail(
                f"the model's function {name[:40]!r} calls another function, which could unfold without end",
                path,
                _REMEDY_FLAT,
            )


class _Walker:
    def __init__(self, data: bytes, path: Path, facts: OnnxFacts) -> None:
        self.data, self.path, self.facts = data, path, facts
        self.seen = 0
        self.called: set[Operator] = set()

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (field number, wire type, start, end); for a varint start is its value."""
        position = start
        while position < end:
            tag, position = self.varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                _fail("the ONNX file is damaged (field 0)", self.path)
            if wire == 0:
                value, position = self.varint(position, end)
                yield number, wire, value, 0
                continue
            if wire == 2:
                length, position = self.varint(position, end)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                _fail(f"the ONNX file is damaged (wire type {wire})", self.path)
            if length > end - position:
                _fail("the ONNX file is cut off", self.path)
            yield number, wire, position, position + length
            position += length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if position >= end or shift > 63:
                _fail("the ONNX file is cut off", self.path)
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, position
            shift += 7

    def message(self, kind: str, start: int, end: int, depth: int) -> bool:
        """Walk one message; says whether it is or holds an attribute that is a graph."""
        self.seen += 1
        if depth > MAX_DEPTH or self.seen > MAX_MESSAGES:
            _fail("the ONNX file is nested too deeply or too large", self.path)
        children = _CHILDREN[kind]
        external: dict[str, str] = {}
        words: dict[int, str] = {}
        branches = False
        if kind == _FUNCTION:
            self.called = set()
        for number, wire, first, last in self.fields(start, end):
            if wire != 2:
                continue
            if number in children:
                branches |= self.message(children[number], first, last, depth + 1)
                branches |= children[number] == _GRAPH and kind == _ATTRIBUTE
            elif kind == _TENSOR and number == 13:
                key, value = self.entry(first, last)
                external[key] = value
            elif (kind == _MODEL and number == 8) or (kind == _FUNCTION and number == 9):
                self.opset(first, last)
            elif number in _WORDS.get(kind, ()):
                words[number] = self.text(first, last)
            elif kind == _GRAPH and depth == 1 and number in (11, 12):
                spec = self.value_info(first, last)
                (self.facts.inputs if number == 11 else self.facts.outputs)[spec.name] = spec
        if external:
            try:
                length = int(external["length"]) if "length" in external else None
                offset = int(external.get("offset", "0"))
            except ValueError:
                _fail("external data states an offset that is not a number", self.path)
            self.facts.external.append(ExternalData(external.get("location", ""), offset, length))
        if kind == _NODE:
            name, domain = words.get(4, ""), words.get(7, "")
            self.facts.domains.add(domain)
            self.called.add((_plain(domain), name))
            if branches:
                self.facts.branching.add(name)
        elif kind == _FUNCTION:
            function = (_plain(words.get(10, "")), words.get(1, ""))
            self.facts.functions.setdefault(function, set()).update(self.called)
        return branches

    def text(self, start: int, end: int) -> str:
        if end - start > 4096:
            _fail("the ONNX file holds a name of more than 4096 bytes", self.path)
        return bytes(self.data[start:end]).decode("utf-8", "replace")

    def entry(self, start: int, end: int) -> tuple[str, str]:
        found = {n: self.text(a, b) for n, w, a, b in self.fields(start, end) if w == 2 and n in (1, 2)}
        return found.get(1, ""), found.get(2, "")

    def opset(self, start: int, end: int) -> None:
        domain, version = "", 0
        for number, wire, first, last in self.fields(start, end):
            if number == 1 and wire == 2:
                domain = self.text(first, last)
            elif number == 2 and wire == 0:
                version = first
        self.facts.domains.add(domain)
        if domain in ("", "ai.onnx"):
            self.facts.opset = max(self.facts.opset, version)

    def value_info(self, start: int, end: int) -> TensorSpec:
        name, dtype, shape = "", "", None
        for number, wire, first, last in self.fields(start, end):
            if number == 1 and wire == 2:
                name = self.text(first, last)
            elif number == 2 and wire == 2:
                for inner, inner_wire, a, b in self.fields(first, last):
                    if inner == 1 and inner_wire == 2:
                        dtype, shape = self.tensor_type(a, b)
        return TensorSpec(name, dtype, shape)

    def tensor_type(self, start: int, end: int) -> tuple[str, tuple[Dim, ...] | None]:
        dtype, shape = "", None
        for number, wire, first, last in self.fields(start, end):
            if number == 1 and wire == 0:
                dtype = ELEMENT_TYPES.get(first, f"type {first}")
            elif number == 2 and wire == 2:
                shape = tuple(self.dim(a, b) for n, w, a, b in self.fields(first, last) if n == 1 and w == 2)
        return dtype, shape

    def dim(self, start: int, end: int) -> Dim:
        for number, wire, first, last in self.fields(start, end):
            if number == 1 and wire == 0:
                return first
            if number == 2 and wire == 2:
                return self.text(first, last)
        return None


_WORDS = {_NODE: (4, 7), _FUNCTION: (1, 10)}
"""Fields that hold the names of an operator or a function, and of its domain."""
_REMEDY_FLAT = "export the model again without loops, branches and nested functions"


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _fail(cause: str, path: Path, remedy: str = REMEDY) -> NoReturn:
    raise BundleError(cause, path=path, remedy=remedy)
