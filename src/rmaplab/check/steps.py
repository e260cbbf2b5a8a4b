# SPDX-License-Identifier: GPL-2.0-only
"""A history as steps: calls, each with the allocation that is to fail in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from rmaplab.check.execute import NO_PLAN, Plan
from rmaplab.scenario import (
    Call,
    Fail,
    Ksmd,
    Pages,
    Par,
    Scenario,
    Statement,
    Walk,
    format_scenario,
    format_statement,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Step", "plan_text", "scenario_of", "step_from_json", "step_to_json", "steps_of", "text_of"]


class Step(NamedTuple):
    """One call of a history, with its failure plan."""

    call: Call | Walk | Ksmd
    plan: Plan = NO_PLAN


def scenario_of(steps: Iterable[Step], before: Iterable[Statement] = ()) -> Scenario:
    """The steps as a scenario says them, behind other statements."""
    statements = list(before)
    for call, plan in steps:
        if plan.n:
            statements.append(Fail(plan.n, plan.nowait, plan.kind))
        statements.append(call)
    return Scenario(tuple(statements))


def plan_text(plan: Plan) -> str:
    """The statement that makes a plan (``fail 2 nowait``); empty for none."""
    return format_statement(Fail(plan.n, plan.nowait, plan.kind)) if plan.n else ""


def text_of(steps: Iterable[Step]) -> str:
    """The steps as the text of a scenario."""
    return format_scenario(scenario_of(steps))


def steps_of(scenario: Scenario) -> tuple[Step, ...]:
    """The calls and walks of a scenario; of a ``par`` the left-to-right order, of everything else nothing."""
    steps: list[Step] = []
    plan = NO_PLAN
    for statement in scenario.statements:
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        for call in statement.calls if isinstance(statement, Par) else (statement,):
            if isinstance(call, Walk | Ksmd):
                steps.append(Step(call))
            elif isinstance(call, Call):
                steps.append(Step(call, plan))
                plan = NO_PLAN
    return tuple(steps)


_KINDS = {kind.__name__: kind for kind in (*get_args(Call), Walk, Ksmd)}


def step_to_json(step: Step) -> list[Any]:
    """A step as JSON: unlike the text of a scenario, it says all by itself."""
    fields = {name: value for name, value in asdict(step.call).items() if name not in ("line", "text")}
    return [type(step.call).__name__, fields, list(step.plan)]


def step_from_json(value: list[Any]) -> Step:
    """What :func:`step_to_json` made; KeyError, TypeError or ValueError for anything else."""
    name, fields, (n, nowait, kind) = value
    fields = {key: Pages(**part) if isinstance(part, dict) else part for key, part in fields.items()}
    return Step(_KINDS[name](**fields), Plan(int(n), bool(nowait), str(kind)))
