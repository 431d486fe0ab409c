"""A tiny valid bundle, made without torch in milliseconds, for every test that needs one.

from bundle_factory import make_bundle      # with tests/ on sys.path
path = make_bundle(tmp_path / "bundle")
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stamp_deploy.bundle import write_bundle_json

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOL = 4
"""The encoder averages the tile over a POOL x POOL grid of cells."""
DIM = 16
GLOBAL_FACTOR = 0.5


def make_bundle(
    path: Path,
    tile_px: int = 64,
    mpp: float = 0.5,
    pathways: tuple[str, ...] = ("HYPOXIA", "ANGIOGENESIS", "APOPTOSIS", "G2M_CHECKPOINT"),
    heads: bool = True,
    seed: int = 0,
    golden_tiles: int = 8,
    weights: dict[str, np.ndarray] | None = None,
    min_fraction: float = 0.25,
    global_scores: bool = False,
    facts: dict[str, object] | None = None,
    trust: bytes | None = None,
) -> Path:
    """Write a bundle whose encoder is cell means of the normalised tile, a linear map to D=16, and another to P.

    With `heads` it has a binary, a three-class and a survival attention head. `tile_px` must be a multiple of 4.
    `weights` replace the random ones: "project" float32 [48, 16] and "score" float32 [16, P]. With `global_scores` the
    encoder has a third output, `GLOBAL_FACTOR` times the scores. `facts` replace keys of bundle.json;
    `trust` is the reference of what the model knows.
    """
    path.mkdir(parents=True)
    (path / "heads").mkdir()
    (path / "golden").mkdir()
    rng = np.random.default_rng(seed)
    random = {
        "project": (rng.normal(size=(3 * POOL * POOL, DIM)) / 4).astype(np.float32),
        "score": (rng.normal(size=(DIM, len(pathways))) / 4).astype(np.float32),
    }
    weights = weights or random
    _save(encoder_model(tile_px, weights, len(pathways), global_scores), path / "encoder.onnx")
    specs = []
    if heads:
        kinds = (
            ("msi", "binary", ["MSS", "MSI"], [0.5], [0.4, 0.6]),
            ("subtype", "multiclass", ["A", "B", "C"], [], None),
        )
        for name, kind, classes, thresholds, abstain in (*kinds, ("survival", "survival", [], [0.0], None)):
            _save(head_model(rng, max(1, len(classes))), path / "heads" / f"{name}.onnx")
            specs.append(
                {
                    "name": name,
                    "file": f"heads/{name}.onnx",
                    "kind": kind,
                    "classes": classes,
                    "temperature": 1.5,
                    "thresholds": thresholds,
                    "abstain": abstain,
                    "details": {"task": f"a made-up {kind} task"},
                }
            )
    tiles = golden(rng, golden_tiles, tile_px)
    embedding, scores = reference(tiles, weights)
    np.save(path / "golden" / "tiles.npy", tiles)
    np.save(path / "golden" / "embedding.npy", embedding)
    np.save(path / "golden" / "pathways.npy", scores)
    if global_scores:
        np.save(path / "golden" / "pathways_global.npy", scores * np.float32(GLOBAL_FACTOR))
    (path / "parity.json").write_text(json.dumps({"passed": True, "stages": []}))
    if trust is not None:
        (path / "trust.json").write_bytes(trust)
    (path / "card.md").write_text("# A bundle for tests\n\nRandom weights. For research use only.\n")
    document = {
        "name": "factory-bundle",
        "pfm": {"id": "factory/cell-means", "licence": "Apache-2.0"},
        "precision": "fp32",
        "tile_px": tile_px,
        "mpp": mpp,
        "mean": list(MEAN),
        "std": list(STD),
        "embedding_dim": DIM,
        "pathways": list(pathways),
        "gene_set_sha256": "0" * 64,
        "encoder": "encoder.onnx",
        "heads": specs,
        "tissue": {"method": "saturation-otsu", "min_fraction": min_fraction},
        "input_range": {"mpp": [mpp * 0.8, mpp * 1.25]},
        "adapter": {"kind": "none"},
        "training_data": {"name": "none: random weights"},
        "parity": {"passed": True},
        "golden": "golden",
        "created_utc": "2026-01-01T00:00:00Z",
        "software": {"stamp_deploy": "test"},
        "outputs": ["embedding", "pathways", *(["pathways_global"] if global_scores else [])],
        "trust": None if trust is None else "trust.json",
        **(facts or {}),
    }
    write_bundle_json(path, document)
    return path


def golden(rng: np.random.Generator, count: int, tile_px: int) -> np.ndarray:
    """Smooth coloured tiles uint8 [count, T, T, 3]."""
    cells = rng.integers(0, 256, size=(count, POOL, POOL, 3))
    side = tile_px // POOL
    noise = rng.integers(-8, 9, size=(count, tile_px, tile_px, 3))
    return np.clip(cells.repeat(side, 1).repeat(side, 2) + noise, 0, 255).astype(np.uint8)


def reference(tiles: np.ndarray, weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder computes, in numpy."""
    count, side = len(tiles), tiles.shape[1] // POOL
    normal = (tiles.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    cells = normal.reshape(count, POOL, side, POOL, side, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(count, -1)
    embedding = (cells @ weights["project"]).astype(np.float32)
    return embedding, (embedding @ weights["score"]).astype(np.float32)


def encoder_model(
    tile_px: int, weights: dict[str, np.ndarray], count: int, global_scores: bool = False
) -> onnx.ModelProto:
    """uint8 [N, T, T, 3] -> Cast -> Transpose -> normalise -> AveragePool -> linear -> linear."""
    side = tile_px // POOL
    constants = {
        **weights,
        "scale": np.float32(255),
        "mean": np.float32(MEAN).reshape(1, 3, 1, 1),
        "std": np.float32(STD).reshape(1, 3, 1, 1),
    }
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["nchw", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("AveragePool", ["normal"], ["cells"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Flatten", ["cells"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "project"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "score"], ["pathways"]),
        *([helper.make_node("Mul", ["pathways", "factor"], ["pathways_global"])] if global_scores else []),
    ]
    if global_scores:
        constants["factor"] = np.float32(GLOBAL_FACTOR)
    names = ("pathways", "pathways_global") if global_scores else ("pathways",)
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", tile_px, tile_px, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count]) for name in names),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def head_model(rng: np.random.Generator, classes: int) -> onnx.ModelProto:
    """Attention head: softmax over the tiles of a linear score, then a linear map of the weighted mean."""
    constants = {
        "score": rng.normal(size=(DIM,)).astype(np.float32),
        "linear": rng.normal(size=(DIM, classes)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["embeddings", "score"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["attention"], axis=0),
        helper.make_node("MatMul", ["attention", "embeddings"], ["slide"]),
        helper.make_node("MatMul", ["slide", "linear"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", DIM])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [classes]),
            helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
