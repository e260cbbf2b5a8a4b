# SPDX-License-Identifier: GPL-2.0-only
"""A scenario as a C program for a real kernel, in the style of the kernel's selftests.

One function a process; a shared page says whose turn it is, so that the calls
come in the scenario's order.  The program stands alone: it takes a libc and
nothing else, and prints TAP.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from rmaplab.check.execute import NO_PLAN, Plan, execute
from rmaplab.check.monitor import monitored
from rmaplab.report.reproducer_calls import Places, Said, grown, mapped, said
from rmaplab.report.reproducer_parts import FAILSLAB, GONE, HELPERS, TAINT, TURNS
from rmaplab.scenario import Call, Exit, Fail, Fork, Ksmd, Mmap, Mremap, Par, StackGrow, Walk, format_statement
from rmaplab.series import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rmaplab.scenario import Scenario

__all__ = ["reproducer"]

_ORDINALS = {1: "1st", 2: "2nd", 3: "3rd"}
_KINDS = {
    "rmap": ("anon_vma or anon_vma_chain", ("anon_vma", "anon_vma_chain")),
    "vma": ("vm_area_struct", ("vm_area_struct",)),
    "tree": ("maple_node", ("maple_node",)),
    "page": ("page", ()),
    "table": ("page-table page", ()),
}


class _Line(NamedTuple):
    """One call: its process, its text, the C of it (None: no program can ask for it), its plan, how it ended."""

    process: str
    call: Call | Walk | Ksmd
    text: str
    said: Said | None
    plan: Plan
    errno: str | None


def reproducer(scenario: Scenario, *, series: str, violations: Sequence[tuple[str, str]] = ()) -> str:
    """The program's text.

    ``series`` is the logic that says how each call ends and where areas are;
    ``violations`` (id, circumstances) are told in the head comment.
    """
    places = Places()
    lines = list(_lines(scenario, series, places))
    failing = next((line for line in lines if line.plan.n), None)
    impossible = next((line for line in lines if line.said is None and not isinstance(line.call, Fork | Exit)), None)
    lines = [line for line in lines if line.process in ("", *_everyone(lines))]
    helpers = {helper for line in lines if line.said is not None for helper in line.said.helpers}
    body = "\n".join(_functions(lines))
    parts = [
        _head(lines, series, violations, failing),
        _includes(places, helpers, failing is not None, "heap" in body),
        *(HELPERS[name] for name in HELPERS if name in helpers),
        TURNS,
        GONE if any(isinstance(line.call, Exit) and line.errno is None for line in lines) else "",
        FAILSLAB if failing is not None else "",
        body,
        _main(lines, places, failing, impossible, "heap" in body),
    ]
    return "\n".join(part for part in parts if part)


def _lines(scenario: Scenario, series: str, places: Places) -> Iterator[_Line]:
    """The calls in order, as the model makes them; a crash of it is the last."""
    kernel = monitored(find(series))()
    kernel.foreign = True
    kernel.spawn("P0")
    plan = NO_PLAN
    for statement in scenario.statements:
        if isinstance(statement, Fail):
            plan = Plan(statement.n, statement.nowait, statement.kind)
        for call in statement.calls if isinstance(statement, Par) else (statement,):
            if not isinstance(call, Call | Walk | Ksmd):
                continue
            own = NO_PLAN if isinstance(call, Walk | Ksmd) else plan
            name = "" if isinstance(call, Ksmd) else call.process  # ksmd is asked by main()
            process = kernel.processes.get(name)
            before = {} if process is None else dict(process.areas)
            outcome = execute(kernel, call, own)
            after = {} if process is None else process.areas
            done = Said("scan()", ("scan",)) if isinstance(call, Ksmd) else None
            if process is not None:
                done = _said(call, before, {name: area.start for name, area in after.items()}, places)
            yield _Line(name, call, format_statement(call), done, own, outcome.errno)
            plan = plan if isinstance(call, Walk | Ksmd) else NO_PLAN
            if any(report.id == "AV-045" for report in outcome.violations):
                return


def _said(call: Call | Walk | Ksmd, areas: dict, after: dict[str, int], places: Places) -> Said | None:  # type: ignore[type-arg]
    if isinstance(call, Mmap):
        start = after.get(call.area, call.at or 0)
        return mapped(call, start, places)
    if isinstance(call, StackGrow):
        return grown(call, areas, places)
    done = said(call, areas, places)
    if isinstance(call, Mremap) and done is not None and "@" in done.code:  # somewhere free: where the model has it
        target = places.at(call.area, after[call.area]) if call.area in after else "NULL"
        done = done._replace(code=done.code.replace("@", target))
    return done


def _ordinal(n: int) -> str:
    return _ORDINALS.get(n, f"{n}th")


def _told(line: _Line) -> str:
    what = _KINDS[line.plan.kind][0]
    alone = " at its first attempt, which may not wait," if line.plan.nowait else ""
    return f"the {_ordinal(line.plan.n)} {what} allocation of `{line.text}`{alone} has to fail"


def _head(lines: list[_Line], series: str, violations: Sequence[tuple[str, str]], failing: _Line | None) -> str:
    text = ["The calls, in this order:", ""]
    for line in lines:
        if line.plan.n:
            text.append(f"    ({_told(line)})")
        text.append(f"    {line.text}{f'  -> {line.errno}' if line.errno else ''}")
    text.append("")
    if violations:
        text.append(f"What breaks, as {series} is modelled:")
        text.append("")
        for ident, detail in violations:
            text += textwrap.wrap(f"{ident}: {detail}", 68, initial_indent="    ", subsequent_indent="      ")
        text.append("")
    text.append("Build:  gcc -O2 -Wall -Wextra -o repro repro.c")
    text.append("A kernel with CONFIG_KASAN and CONFIG_DEBUG_VM says more than one without.")
    if failing is not None:
        text.append("Takes CONFIG_FAILSLAB, CONFIG_FAULT_INJECTION_DEBUG_FS and root.")
    comment = "\n".join(f" * {line}".rstrip() for line in text)
    return f"// SPDX-License-Identifier: GPL-2.0\n/*\n{comment}\n */\n#define _GNU_SOURCE"


def _includes(places: Places, helpers: set[str], failing: bool, heap: bool) -> str:
    wanted = {"errno.h", "fcntl.h", "signal.h", "stdio.h", "stdlib.h", "string.h", "unistd.h"}
    wanted |= {"sys/mman.h", "sys/prctl.h", "sys/types.h"}
    if "touch" in helpers:
        wanted.add("setjmp.h")
    lines = [f"#include <{name}>" for name in sorted(wanted)]
    lines += ["", "#define PAGE 4096UL"]
    for name, number in sorted(places.missing.items()):
        lines += [f"#ifndef {name}", f"#define {name} {number}", "#endif"]
    if places.defined:
        lines += ["", "/* Where the areas are: out of the way of the program's own. */"]
        lines += [f"#define {name} ((char *){place:#x}UL)" for name, place in sorted(places.defined.items())]
    if heap:
        lines += ["", "static char *heap;"]
    lines += [f"static int {name};" for name in places.files.values()]
    return "\n".join(lines) + "\n"


def _everyone(lines: list[_Line]) -> list[str]:
    """The processes that there are, P0 first, then in order of creation."""
    return ["P0", *(line.call.child for line in lines if isinstance(line.call, Fork) and line.errno is None)]


def _functions(lines: list[_Line]) -> Iterator[str]:
    """A function for each process, children before those who fork them."""
    everyone = _everyone(lines)
    yield "\n".join(f"static void __attribute__((noreturn)) run_{name}(void);" for name in everyone) + "\n"
    for name in everyone:
        body = [
            text for turn, line in enumerate(lines, 1) if line.process == name for text in _call(turn, line, everyone)
        ]
        if not any(isinstance(line.call, Exit) and line.process == name and line.errno is None for line in lines):
            body += [f"\twait_for({len(lines) + 1});", "\t_exit(0);"]
        yield f"static void run_{name}(void)\n{{\n" + "\n".join(body) + "\n}\n"


def _call(turn: int, line: _Line, everyone: list[str]) -> Iterator[str]:
    yield f"\twait_for({turn});"
    expected = line.errno or "0"
    if isinstance(line.call, Exit) and line.errno is None:
        yield "\t_exit(0);"
        return
    if line.said is not None and line.said.remark:
        yield f"\t/* {line.said.remark} */"
    if line.plan.n:
        yield f'\tfail_nth("{line.plan.n}", {int(not line.plan.nowait)});'
    code = "0" if line.said is None else line.said.code
    if isinstance(line.call, Fork):
        yield from _fork(line, expected, everyone)
        return
    if line.plan.n:
        code = f"no_more({code})"
    yield f'\tcheck("{line.text}", {expected},\n\t      {code});'


def _fork(line: _Line, expected: str, everyone: list[str]) -> Iterator[str]:
    assert isinstance(line.call, Fork)
    child = line.call.child
    rc = "no_more(pid)" if line.plan.n else "pid"
    yield "\t{"
    yield "\t\tpid_t pid = fork();\n"
    if line.errno is None:
        yield "\t\tif (!pid)"
        yield f"\t\t\trun_{child}();"
        yield f"\t\tall->pids[{everyone.index(child)}] = pid;"
    else:
        yield "\t\tif (!pid)"
        yield "\t\t\t_exit(0);"
    yield f'\t\tcheck("{line.text}", {expected}, {rc});'
    yield "\t}"


def _main(lines: list[_Line], places: Places, failing: _Line | None, impossible: _Line | None, heap: bool) -> str:
    everyone = _everyone(lines)
    body = ["\tlong tainted;", "\tpid_t pid;", ""]
    skips = []
    if impossible is not None:
        skips.append(f'\tprintf("1..0 # SKIP no program can ask for `{impossible.text}` by itself\\n");\n\treturn 4;')
    if failing is not None and impossible is None:
        skips.append(_set_up(failing))
    body += [
        '\tprintf("TAP version 13\\n");',
        "\tall = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);",
        "\tif (all == MAP_FAILED)",
        "\t\treturn 1;",
    ]
    body += skips
    body += [f'\t{variable} = file("{name}");' for name, variable in places.files.items()]
    if heap:
        body += ["\theap = sbrk(0);", "\tsbrk(-(unsigned long)heap % PAGE);", "\theap = sbrk(0);"]
    body += [
        "\tprctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans become this one's children, */",
        "\tsignal(SIGCHLD, SIG_IGN); /* and who exits is gone at once */",
        "\ttainted = taint();",
        "\tpid = fork();",
        "\tif (!pid)",
        f"\t\trun_{everyone[0]}();",
        "\tall->pids[0] = pid;",
        "\tall->turn = 1;",
    ]
    for turn, line in enumerate(lines, 1):
        if isinstance(line.call, Ksmd):
            body += [f"\twait_for({turn});", '\tcheck("ksmd", 0, scan());']
        elif isinstance(line.call, Exit) and line.errno is None:
            body += [f"\twait_for({turn});", f"\tgone({everyone.index(line.process)}); /* {line.text} */"]
    body += [
        f"\twait_for({len(lines) + 1});",
        '\tprintf("1..1\\n");',
        f"\tfor (int i = 0; i < {len(everyone)}; i++)",
        "\t\twhile (all->pids[i] > 0 && !kill(all->pids[i], 0))",
        "\t\t\tusleep(1000);",
        "\tif ((taint() & ~tainted) & (1 << 7 | 1 << 9)) {",
        '\t\tprintf("not ok 1 - the kernel is tainted by an oops or a warning: see dmesg\\n");',
        "\t\treturn 1;",
        "\t}",
        "\tif (all->differences) {",
        '\t\tprintf("not ok 1 - %d calls ended otherwise than modelled\\n", all->differences);',
        "\t\treturn 1;",
        "\t}",
        '\tprintf("ok 1 - made all calls; dmesg has what KASAN or an assertion says\\n");',
        "\treturn 0;",
    ]
    return TAINT + "\nint main(void)\n{\n" + "\n".join(body) + "\n}\n"


def _set_up(line: _Line) -> str:
    """Choose the caches whose allocations may fail; without failslab say what would have to fail, and skip."""
    caches = _KINDS[line.plan.kind][1]
    sets = [("/sys/kernel/debug/failslab/probability", "0"), ("/sys/kernel/debug/failslab/interval", "1")]
    sets += [("/sys/kernel/debug/failslab/cache-filter", "Y"), ("/sys/kernel/debug/failslab/ignore-gfp-wait", "N")]
    sets += [("/sys/kernel/debug/failslab/task-filter", "Y"), ("/sys/kernel/debug/failslab/space", "0")]
    sets += [(f"/sys/kernel/slab/{cache}/failslab", "1") for cache in caches]
    tests = " ||\n\t    ".join(f'set("{path}", "{value}")' for path, value in sets)
    if not caches:
        tests = 'set("", "")'
    text = _told(line).replace('"', "'")
    return f'\tif ({tests}) {{\n\t\tprintf("1..0 # SKIP no failslab here: {text}\\n");\n\t\treturn 4;\n\t}}'
