"""The published schema of bundle.json takes what `validate` takes, and refuses what one value alone makes wrong."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from support.bundle_factory import make_bundle
from test_schema_values import HEAD_VALUES, VALUES
from test_validation_block import PATHWAYS, block

from stamp_deploy.bundle.json_schema import bundle_schema
from stamp_deploy.bundle.schema import validate

TOGETHER = ("upside down", "ascending", "must be none or", "must be 2 for 3 risk groups", "created_utc", "positive")
"""Words of the rules that hold values against each other, or that a pattern cannot say; `validate` alone knows them."""
NAN = str({"mpp": float("nan")})
"""No JSON."""
CHECK = jsonschema.Draft202012Validator(bundle_schema())


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(json.loads((make_bundle(tmp_path_factory.mktemp("b") / "bundle") / "bundle.json").read_text()))


def refused(document: dict[str, Any]) -> bool:
    return next(CHECK.iter_errors(document), None) is not None


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(bundle_schema())


def test_a_bundle_with_and_without_its_validation_is_taken(document: dict[str, Any]) -> None:
    CHECK.validate(document)
    CHECK.validate({**document, "pathways": list(PATHWAYS), "validation": block(), "trust": "trust.json"})


@pytest.mark.parametrize(
    "change",
    [c for c, words in VALUES if not any(w in words for w in TOGETHER) and str(c) != NAN],
    ids=lambda c: str(c)[:50],
)
def test_a_value_out_of_its_range_is_refused(document: dict[str, Any], change: dict[str, Any]) -> None:
    assert refused({**document, **change})


@pytest.mark.parametrize(
    ("which", "change"),
    [(n, c) for n, c, words in HEAD_VALUES if not any(w in words for w in TOGETHER)],
    ids=lambda c: str(c)[:50],
)
def test_a_value_of_a_head_out_of_its_range_is_refused(
    document: dict[str, Any], which: int, change: dict[str, Any]
) -> None:
    heads = [dict(head) for head in document["heads"]]
    heads[which] |= change
    assert refused({**document, "heads": heads})


def test_every_key_is_needed_and_no_other_is_known(document: dict[str, Any]) -> None:
    for key in document:
        assert refused({k: v for k, v in document.items() if k != key}), key
    assert refused({**document, "more": 1})


def test_version_1_is_read_by_the_program_and_is_another_schema(document: dict[str, Any]) -> None:
    first = {k: v for k, v in document.items() if k not in ("outputs", "validation", "trust", "twins")}
    validate({**first, "schema_version": 1})
    assert refused({**first, "schema_version": 1})
