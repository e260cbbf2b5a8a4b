# SPDX-License-Identifier: GPL-2.0-only
"""The documents do what they say: every console, python and rmap block is run."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import docs_runner
import pytest
from docs_runner import Block, Document, Step, make_targets, matches, parse, steps

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("console", "python", "rmap")
NAMES_OF_CONSOLE = ("bash", "pycon", "sh", "shell", "shell-session", "zsh")


def parsed(path):
    return parse(path.read_text(encoding="utf-8"))


def blocks():
    for path in DOCUMENTS:
        name = path.relative_to(ROOT).as_posix()
        with contextlib.suppress(ValueError):  # test_commands_stand_in_console_blocks tells of it
            for block in parsed(path):
                if block.language in RUN:
                    yield pytest.param(path, block, id=f"{name}:{block.line}")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Gives the document of a path: one for all its blocks, in a folder with copies of what it names."""
    documents = {}
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))

    def of(path):
        if path not in documents:
            folder = tmp_path_factory.mktemp(path.stem)
            for name in ("docs", "examples", "src/rmaplab/data/zoo"):
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            documents[path] = Document(path.read_text(encoding="utf-8"), folder, targets)
        return documents[path]

    return of


@pytest.mark.parametrize(("path", "block"), list(blocks()))
def test_block_does_what_it_says(document, path, block):
    if why := Document.lacks(block):
        pytest.skip(why)
    if problem := document(path).outcome(block):
        pytest.fail(problem, pytrace=False)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_stand_in_console_blocks(path):
    others = [block.line for block in parsed(path) if block.language in NAMES_OF_CONSOLE]
    assert not others, "only ```console blocks are run"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(path):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^()\s]+)\)", text) if "://" not in target]
    assert not [target for target in targets if not (path.parent / target).exists()]


# The runner itself.


def outcomes(text, folder, targets=frozenset()):
    document = Document(text, folder, set(targets))
    return [document.outcome(block) for block in document.blocks]


def test_parse_finds_blocks_with_place_and_language():
    assert parse("text\n```console\n$ true\n```\n\n````python x=1\na\n```\nb\n````\n") == [
        Block("console", 3, "$ true\n"),
        Block("python", 7, "a\n```\nb\n"),
    ]


def test_parse_reads_the_comment_before_a_block_only():
    text = (
        "<!-- docs: exit 3 -->\n\n```console\n```\n<!-- docs: not run: no network -->\n```rmap\n```\n```python\n```\n"
    )
    assert [(block.exit_code, block.not_run) for block in parse(text)] == [(3, None), (0, "no network"), (0, None)]


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ true\n",
        "<!-- docs: exit one -->\n```console\n```\n",
        "<!-- docs: not run -->\n```console\n```\n",
        "<!-- docs exit 1 -->\n```console\n```\n",
        "<!-- docs: exit 1; -->\n```console\n```\n",
        "<!-- docs: exit 1needs: um-7.3 -->\n```console\n```\n",
        "<!-- docs: needs: um-6.11 -->\n```console\n```\n",
    ],
)
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="line"):
        parse(text)


def test_blocks_that_lack_a_part_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(docs_runner.cache, "find", {"um-7.3": "a kernel"}.get)
    text = "<!-- docs: needs: {} -->\n```console\n$ false\n```\n"
    (here,) = parse(text.format("um-7.3"))
    (elsewhere,) = parse(text.format("um-7.3, deb-6.1"))
    assert Document.lacks(here) is None
    assert "deb-6.1" in Document.lacks(elsewhere)
    assert "exit code 1" in outcomes(text.format("um-7.3"), tmp_path)[0]
    assert outcomes(text.format("um-7.3, deb-6.1"), tmp_path) == [None]


def test_a_block_may_need_a_part_and_fail():
    (block,) = parse("<!-- docs: exit 3; needs: um-7.3, drgn -->\n```console\n```\n")
    assert (block.exit_code, block.needs) == (3, ("um-7.3", "drgn"))


def test_the_running_kernel_is_read_on_request_only(monkeypatch):
    monkeypatch.delenv("RMAPLAB_LIVE", raising=False)
    assert "RMAPLAB_LIVE=1" in docs_runner.lacking("host")


def test_steps():
    assert steps("$ a \\\n> b\nout\n> not the command\n\n$ c\n") == [
        Step("a \\\nb", ("out", "> not the command", "")),
        Step("c", ()),
    ]
    with pytest.raises(ValueError, match="above the first"):
        steps("out\n$ a\n")


@pytest.mark.parametrize(
    ("expected", "actual", "verdict"),
    [
        ("a\nb", "a\nb", True),
        ("a\nb", "a  \nb\n\n", True),
        ("a\nb", "a\nB", False),
        ("a\nb", "a\nb\nc", False),
        ("a\nb", "a", False),
        ("", "a", False),
        ("...", "", True),
        ("...", "a\nb", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nd", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("took ... s", "took 1.5 s", True),
        ("took ... s", "took 1.5 m", False),
        ("took ... s", "took\n1 s", False),
        ("(a|b)", "a", False),
    ],
)
def test_matches(expected, actual, verdict):
    assert matches(expected.splitlines(), actual.splitlines()) is verdict


@pytest.mark.parametrize(
    "code",
    [
        "$ echo one; echo two >&2\none\ntwo\n",
        "$ x=1\n$ echo $x\n1\n",
        "$ printf 'no newline'\nno newline\n$ true\n",
        "$ echo 1 2 3\n1 ... 3\n",
        "$ echo $NO_COLOR\n1\n",
        "$ cat\n",
    ],
)
def test_console_block_that_is_right(tmp_path, code):
    assert outcomes(f"```console\n{code}```\n", tmp_path) == [None]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("$ echo one\ntwo\n", "-two"),
        ("$ echo one\n", "+one"),
        ("$ true\none\n", "-one"),
        ("$ false\n", "exit code 1 instead of 0"),
        ("$ false\n$ true\n", "exit code 1 instead of 0"),
        ("$ no-such-command-here\n...\n", "exit code 127"),
        ("$ exit 0\n$ true\n", "`exit 0` ended"),
    ],
)
def test_console_block_that_is_wrong(tmp_path, code, problem):
    [outcome] = outcomes(f"```console\n{code}```\n", tmp_path)
    assert problem in outcome


def test_exit_code_of_the_last_command(tmp_path):
    text = "<!-- docs: exit 3 -->\n```console\n$ true\n$ (exit {})\n```\n"
    assert outcomes(text.format(3), tmp_path) == [None]
    assert "exit code 0 instead of 3" in outcomes(text.format(0), tmp_path)[0]


def test_command_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(docs_runner, "TIMEOUT", 0.2)
    [outcome] = outcomes("```console\n$ sleep 60 | cat\n```\n", tmp_path)
    assert "not finished" in outcome


def test_blocks_that_are_not_run(tmp_path):
    text = (
        "<!-- docs: not run: needs a network -->\n```console\n$ false\n```\n"
        "<!-- docs: not run: takes hours -->\n```python\n1 / 0\n```\n"
        "```text\n$ false\n```\n```json\n{\n```\n```mermaid\n```\n```\nno language\n```\n"
    )
    assert outcomes(text, tmp_path) == [None] * 6


def test_make_is_looked_up_and_not_run(tmp_path):
    targets = make_targets(".PHONY: demo test\ndemo: .stamp\n\tfalse\n")
    assert targets == {"demo", "test"}
    text = "```console\n$ make demo\nwhatever\n$ make PYTHON=python3.12 test # all\n```\n"
    assert outcomes(text, tmp_path, targets) == [None]
    clone = "<!-- docs: not run: clones -->\n```console\n$ git clone it\n$ make dmeo\n```\n"
    assert outcomes(clone, tmp_path, targets) == ["`make dmeo`: the Makefile has no target dmeo"]


def test_python_blocks_share_their_names(tmp_path):
    assert outcomes(
        "```python\nx = 1\n```\n```python\n>>> x\n1\n>>> y = 2\n```\n```python\ny + 1\n```\n", tmp_path
    ) == [
        None,
        None,
        None,
    ]


def test_python_block_that_is_wrong(tmp_path):
    raises, differs = outcomes("```python\nx = 1\n1 / 0\n```\n```python\n>>> x\n2\n```\n", tmp_path)
    assert "line 3" in raises
    assert "ZeroDivisionError" in raises
    assert "Expected:\n    2\nGot:\n    1" in differs


def test_blocks_see_the_files_of_those_above_whichever_is_asked_first(tmp_path):
    document = Document('```console\n$ echo 1 >made\n```\n```python\nopen("made").close()\n```\n', tmp_path)
    assert document.outcome(document.blocks[1]) is None
    assert Path.cwd() != tmp_path


def test_rmap_block(tmp_path):
    good = "```rmap\nP0 mmap A 1\nexpect vmas 1\n```\n"
    unmet = "```rmap\nP0 mmap A 1\nexpect vmas 2\n```\n"
    assert outcomes(good, tmp_path) == [None]
    assert "exit code 1 instead of 0" in outcomes(unmet, tmp_path)[0]
    assert outcomes(f"<!-- docs: exit 1 -->\n{unmet}", tmp_path) == [None]
    assert outcomes("<!-- docs: exit 4 -->\n```rmap\nnonsense\n```\n", tmp_path) == [None]
