# SPDX-License-Identifier: GPL-2.0-only
"""The result of a check as SARIF 2.1.0 (OASIS), which code hosts show beside the code."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from rmaplab.check.invariants import INVARIANTS

__all__ = ["sarif"]

Document = dict[str, Any]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(document: Document) -> Document:
    """A log with one run: a rule for each violated invariant, a result for each violation.

    ``document`` is one of ``kind: check``; a result stands at the design's
    file, or at the series as a logical location, and its code flow is the
    scenario.
    """
    location = _location(document["series"])
    violations = document["violations"]
    rules = sorted({violation["id"] for violation in violations})
    invocation: Document = {"executionSuccessful": document["verdict"] != "no-verdict"}
    if document["verdict"] == "no-verdict":
        text = f"no verdict: {document['reason']}"
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": {"text": text}}]
    run = {
        "tool": {"driver": {"name": "rmaplab", "rules": [_rule(ident) for ident in rules]}},
        "invocations": [invocation],
        "results": [
            {
                "ruleId": violation["id"],
                "ruleIndex": rules.index(violation["id"]),
                "level": "error",
                "message": {"text": f"{violation['detail']}\n\n{violation['scenario']}"},
                "locations": [location],
                "codeFlows": [{"threadFlows": [{"locations": _flow(violation["scenario"], location)}]}],
            }
            for violation in violations
        ],
    }
    if "rmaplab" in document:
        run["tool"]["driver"]["version"] = document["rmaplab"]  # type: ignore[index]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(ident: str) -> Document:
    invariant = INVARIANTS[ident]
    return {
        "id": ident,
        "shortDescription": {"text": invariant.statement},
        "help": {"text": f"after {invariant.source}"},
    }


def _location(series: str) -> Document:
    if series.endswith(".py"):
        uri = quote(PurePath(series).as_posix())
        return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}
    return {"logicalLocations": [{"name": series, "kind": "module"}]}


def _flow(scenario: str, location: Document) -> list[Document]:
    return [
        {"location": {**location, "message": {"text": line}}, "executionOrder": number}
        for number, line in enumerate(scenario.splitlines(), 1)
    ]
