# SPDX-License-Identifier: GPL-2.0-only
"""From the text of a ``par`` to its branches: calls between braces, ``;`` after and ``||`` beside each other."""

from dataclasses import replace

from rmaplab.errors import InputError
from rmaplab.scenario.call_parser import CALLS, parse_call
from rmaplab.scenario.calls import Call, Fork
from rmaplab.scenario.scope import Scope
from rmaplab.scenario.statements import Par
from rmaplab.scenario.tokens import Line, Token

__all__ = ["MAX_INTERLEAVINGS", "parse_par"]

MAX_INTERLEAVINGS = 1000


def parse_par(line: Line, scope: Scope) -> Par:
    """Read ``par { P0 write A[0] || P0 munmap A }``.

    What a branch binds or forks is not known in the others; below the line, all of it is.
    """
    start = line.take()
    scope.refuse_fail(line, start)
    line.mark("{", "after `par`, as in `par { P0 write A[0] || P0 munmap A }`")
    line.between_braces(True)
    par = Par((_branch(line, start, scope.branch()),))
    while line.skip("||"):
        par = Par((*par.branches, _branch(line, start, scope.branch())))
        if par.interleavings > MAX_INTERLEAVINGS:
            raise _too_many(line, start)
    line.between_braces(False)
    line.mark("}", "at the end of the `par`")
    _check(line, start, par)
    for call in par.calls:
        scope.called(line, call)
    return par


def _branch(line: Line, start: Token, scope: Scope) -> tuple[Call, ...]:
    calls = [_call(line, scope)]
    while line.skip(";"):
        calls.append(_call(line, scope))
        if len(calls) > MAX_INTERLEAVINGS:  # whatever stands beside it
            raise _too_many(line, start)
    return tuple(calls)


def _too_many(line: Line, start: Token) -> InputError:
    wrong = f"these branches can interleave in more than {MAX_INTERLEAVINGS:,} ways"
    return line.error(start, wrong, "expected fewer calls or branches")


def _call(line: Line, scope: Scope) -> Call:
    token = line.peek()
    if not scope.is_process(token.text) and line.peek(1).text not in CALLS:
        raise line.unexpected("a call such as `P0 fork P1` (a `par` has nothing but calls)", scope.process_names())
    call = parse_call(line, scope)
    line.finish_call()
    return replace(call, line=line.number, text=line.text_from(token))


def _check(line: Line, start: Token, par: Par) -> None:
    if len(par.branches) < 2:
        wrong = "a `par` of one branch has nothing beside it"
        raise line.error(start, wrong, "expected two branches or more, with `||` between them")
    forked: dict[str, int] = {}
    for number, branch in enumerate(par.branches):
        for child in (call.child for call in branch if isinstance(call, Fork)):
            if forked.setdefault(child, number) != number:
                wrong = f"two branches fork a process named {child}"
                raise line.error(start, wrong, "expected a name for each")
