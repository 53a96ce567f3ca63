# SPDX-License-Identifier: GPL-2.0-only
"""The schemas come with the package, are schemas, and name what the model names."""

from __future__ import annotations

import jsonschema
import pytest

from kvmtest import schemas
from kvmtest.judge.findings import EFFECTS
from kvmtest.model.record import EVENTS, VIEWS
from kvmtest.model.verdict import ATTENTION, VERDICTS
from kvmtest.results.lines import SCHEMA
from kvmtest.spec.deviations import KINDS


@pytest.mark.parametrize("name", schemas.NAMES)
def test_each_is_a_schema(name: str) -> None:
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema" and schema["title"].startswith(f"kvmtest.{name}/")


def test_results_have_the_words_of_the_model() -> None:
    schema = schemas.load("results")
    words = schema["$defs"]
    assert schema["title"] == schema["properties"]["schema"]["const"] == SCHEMA
    assert (tuple(words["event"]["enum"]), tuple(words["view"]["enum"])) == (EVENTS, VIEWS)
    assert tuple(words["verdict"]["enum"]) == VERDICTS
    finding = words["finding"]["properties"]
    assert tuple(finding["effect"]["enum"]) == EFFECTS and set(finding["verdict"]["enum"]) == ATTENTION
    assert set(finding["kind"]["enum"]) == set(KINDS)
