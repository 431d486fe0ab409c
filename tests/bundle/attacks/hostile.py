"""Hostile bundles, each built from a good one. A builder takes the bundle folder and changes it in place.

`ATTACKS` maps a name to (builder, what the refusal must say). "Resealed" attacks rewrite bundle.json so that
every hash fits: only the later checks can catch them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from stamp_deploy.hashing import sha256_file


def _document(folder: Path) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def _write(folder: Path, document: dict) -> None:
    (folder / "bundle.json").write_text(json.dumps(document))


def reseal(folder: Path, **change: object) -> None:
    """Make every recorded hash and size fit the present files, so that the attack is not a mere altered byte."""
    document = {**_document(folder), **change}
    for name in document["files"]:
        path = folder / name
        if path.is_file():
            document["files"][name] = {"sha256": sha256_file(path), "size": path.stat().st_size}
    _write(folder, document)


def _edit_model(folder: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    path = folder / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    reseal(folder)


def _external(location: str, offset: int = 0, length: int = 64) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        def edit(model: onnx.ModelProto) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == "project")
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            del tensor.external_data[:]
            for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)

        _edit_model(folder, edit)

    return build


def _nested_external(folder: Path) -> None:
    """The hostile tensor hides in a Constant node inside a branch of an If."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="/etc/passwd")
        inner = helper.make_node("Constant", [], ["inner"], value=tensor)
        out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [16])
        branch = helper.make_graph([inner], "branch", [], [out])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        model.graph.node.append(helper.make_node("Constant", [], ["cond"], value=yes))
        model.graph.node.append(helper.make_node("If", ["cond"], ["unused"], then_branch=branch, else_branch=branch))

    _edit_model(folder, edit)


def _byte(name: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return build


def _cut(name: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return build


def _resealed_bytes(name: str, data: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / name).write_bytes(data)
        reseal(folder)

    return build


def _resealed_cut(folder: Path) -> None:
    _cut("encoder.onnx")(folder)
    reseal(folder)


def _manifest(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "bundle.json").write_bytes(data) and None


def _listed(name: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        document = _document(folder)
        document["files"][name] = {"sha256": "0" * 64, "size": 1}
        _write(folder, document)

    return build


def _symlink(folder: Path) -> None:
    target = folder.parent / "outside.md"
    (folder / "card.md").rename(target)
    (folder / "card.md").symlink_to(target)


def _linked_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "elsewhere")
    (folder / "golden").symlink_to(folder.parent / "elsewhere")


def _repeated_key(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace('"schema_version"', '"schema_version": 9, "schema_version"', 1))


def _size(value: object) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        document = _document(folder)
        document["files"]["encoder.onnx"]["size"] = value
        _write(folder, document)

    return build


def _shape(side: str, index: int, dims: list[object]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        def edit(model: onnx.ModelProto) -> None:
            value = getattr(model.graph, side)[index]
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, dims))

        _edit_model(folder, edit)

    return build


def _dtype(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    _edit_model(folder, edit)


def _renamed_output(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-2].output[0] = model.graph.node[-1].input[0] = model.graph.output[0].name = "other"

    _edit_model(folder, edit)


def _custom_operator(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "evil.ops"
        model.opset_import.append(helper.make_opsetid("evil.ops", 1))

    _edit_model(folder, edit)


def _deep(folder: Path) -> None:
    """Attributes that hold graphs that hold nodes that hold attributes, a thousand levels down."""
    blob = b""
    for _ in range(1000):
        blob = _field(1, _field(5, _field(6, blob)))  # graph.node.attribute.g
    (folder / "encoder.onnx").write_bytes(_field(7, blob))
    reseal(folder)


def _field(number: int, payload: bytes) -> bytes:
    size, length = b"", len(payload)
    while True:
        size += bytes([(length & 0x7F) | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return bytes([number << 3 | 2]) + size + payload


def _pipe(folder: Path) -> None:
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")


def _folder_for_manifest(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "changed byte in the encoder": (_byte("encoder.onnx"), "has been changed"),
    "changed byte in the golden tiles": (_byte("golden/tiles.npy"), "has been changed"),
    "changed byte in the card": (_byte("card.md"), "has been changed"),
    "truncated encoder": (_cut("encoder.onnx"), "bytes and should be"),
    "truncated bundle.json": (_cut("bundle.json"), "not valid JSON"),
    "missing head": (lambda f: (f / "heads/msi.onnx").unlink(), "is missing"),
    "smuggled file": (lambda f: (f / "plugin.so").write_bytes(b"x") and None, "not in bundle.json"),
    "symbolic link": (_symlink, "is a link"),
    "linked folder": (_linked_folder, "is a link"),
    "named pipe": (_pipe, "special file"),
    "no bundle.json": (lambda f: (f / "bundle.json").unlink(), "no bundle.json"),
    "bundle.json is a folder": (_folder_for_manifest, "no bundle.json"),
    "empty bundle.json": (_manifest(b""), "not valid JSON"),
    "bundle.json is a list": (_manifest(b"[]"), "does not hold an object"),
    "bundle.json nests a million deep": (_manifest(b"[" * 1_000_000), "not valid JSON"),
    "bundle.json is not UTF-8": (_manifest(b'{"name": "\xff"}'), "not valid JSON"),
    "bundle.json holds NaN": (_manifest(b'{"mpp": NaN}'), "holds NaN"),
    "bundle.json is oversized": (_manifest(b" " * (16 * 2**20 + 1)), "larger than"),
    "repeated key": (_repeated_key, "repeats a key"),
    "unknown schema version": (lambda f: reseal(f, schema_version=99), "schema version 99"),
    "absolute file name": (_listed("/etc/passwd"), "leaves the bundle"),
    "file name with ..": (_listed("golden/../../secret"), "leaves the bundle"),
    "file name with a backslash": (_listed("golden\\..\\secret"), "leaves the bundle"),
    "hidden file name": (_listed(".ssh"), "leaves the bundle"),
    "file name with a zero byte": (_listed("a\0b"), "leaves the bundle"),
    "negative size": (_size(-1), "is not 0 to"),
    "oversized file": (_size(2**50), "is not 0 to"),
    "size that is text": (_size("12"), "is not 0 to"),
    "encoder outside the bundle": (lambda f: reseal(f, encoder="../encoder.onnx"), "not among"),
    "external data above the bundle": (_external("../../../etc/passwd"), "external data points at"),
    "external data at an absolute path": (_external("/etc/passwd"), "external data points at"),
    "external data in bundle.json": (_external("bundle.json"), "external data points at"),
    "external data past the end": (_external("card.md", 0, 10**9), "runs past the end"),
    "external data at a negative offset": (_external("card.md", -8), "runs past the end"),
    "external data inside a branch": (_nested_external, "external data points at"),
    "wrong tile size": (_shape("input", 0, ["n", 32, 32, 3]), "should have"),
    "fixed batch": (_shape("input", 0, [1, 64, 64, 3]), "should have"),
    "wrong embedding size": (_shape("output", 0, ["n", 15]), "should have"),
    "wrong pathway count": (_shape("output", 1, ["n", 99]), "should have"),
    "wrong rank": (_shape("output", 1, ["n"]), "should have"),
    "float input": (_dtype, "should be uint8"),
    "renamed output": (_renamed_output, "the outputs are"),
    "custom operator": (_custom_operator, "operators of the domain"),
    "encoder is not ONNX": (_resealed_bytes("encoder.onnx", b"MZ\x90\x00" * 100), "damaged|cut off|no graph"),
    "encoder is empty": (_resealed_bytes("encoder.onnx", b""), "is empty"),
    "encoder is cut, hashes fit": (_resealed_cut, "cut off"),
    "encoder nests too deep": (_deep, "nested too deeply"),
}
