# SPDX-License-Identifier: GPL-2.0-only
import contextlib
import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaplab.errors import InputError
from rmaplab.workload.trace import FORMAT_VERSION, KINDS, End, Header, TraceReader, TraceWriter
from rmaplab.workload.trace_events import EventChecker, EventError

PAGE = 4096
HEADER = Header(("prog", "\udcff arg", "é"), "x86_64", "6.1.0", PAGE)
EVENTS = [
    ["exec", 0, "/bin/prog", [[PAGE, 3 * PAGE, "r-xp", 0, "/bin/prog"], [4 * PAGE, 5 * PAGE, "rw-p", PAGE, ""]]],
    ["mmap", 0, 16 * PAGE, 4 * PAGE, 3, 0x22, 0, None],
    ["mmap", 0, 32 * PAGE, PAGE, 1, 2, PAGE, "/lib/\udcfe.so"],
    ["anon", 0, [[16 * PAGE, 2], [18 * PAGE, 1], [32 * PAGE, 1]]],
    ["fork", 0, 1],
    ["share", 1, 2, "thread"],
    ["mprotect", 2, 16 * PAGE, PAGE, 1],
    ["mremap", 1, 16 * PAGE, 0, 8 * PAGE, 1, 64 * PAGE],
    ["brk", 1, 12345, 23456],
    ["madvise", 1, 16 * PAGE, PAGE, 4],
    ["exit", 2],
    ["other", 1, "shmat"],
    ["munmap", 1, 16 * PAGE, PAGE],
    ["exit", 1],
    ["exit", 0],
]


def write(path, events=EVENTS, header=HEADER):
    with TraceWriter(path, header) as writer:
        for event in events:
            writer.write(event)
        writer.close(status=3)
    return path


def zipped(data):
    """The same bytes whenever it is asked: they are in a test's name."""
    return gzip.compress(data, mtime=0)


def read(path, **options):
    with TraceReader(path, **options) as reader:
        return reader.header, list(reader), reader.end


def write_lines(path, *lines):
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    return path


def lines_of(events):
    header = {"rmaplab-trace": 1, "command": ["x"], "arch": "x86_64", "kernel": "6.1", "page_size": PAGE}
    end = {"end": {"events": len(events), "interrupted": False, "status": 0}}
    return [json.dumps(value).encode() for value in (header, *events, end)]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return write(tmp_path_factory.mktemp("trace") / "valid.trace").read_bytes()


def test_every_kind_comes_back_as_written(tmp_path):
    assert {event[0] for event in EVENTS} == set(KINDS)
    assert read(write(tmp_path / "t")) == (HEADER, EVENTS, End(len(EVENTS), interrupted=False, status=3))


def test_same_events_give_same_bytes(tmp_path):
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_writer_counts_by_kind(tmp_path):
    with TraceWriter(tmp_path / "t", HEADER) as writer:
        for event in EVENTS:
            writer.write(event)
    assert writer.events == len(EVENTS)
    assert writer.counts["mmap"] == 2


def test_final_name_appears_only_on_close(tmp_path):
    target = tmp_path / "t"
    target.write_text("older")
    writer = TraceWriter(target, HEADER)
    assert target.read_text() == "older"
    writer.close()
    assert os.listdir(tmp_path) == ["t"]
    assert read(target)[1] == []


def test_discard_leaves_nothing(tmp_path):
    writer = TraceWriter(tmp_path / "t", HEADER)
    writer.discard()
    writer.close()
    assert os.listdir(tmp_path) == []


def test_exception_while_writing_keeps_what_is_there(tmp_path):
    def interrupted():
        with TraceWriter(tmp_path / "t", HEADER) as writer:
            writer.write(EVENTS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(tmp_path / "t")[1:] == (EVENTS[:1], End(1, interrupted=True, status=None))


def test_abandoned_partial_file_is_readable_to_its_last_batch(tmp_path):
    writer = TraceWriter(tmp_path / "t", HEADER)
    for event in [EVENTS[0], *[["madvise", 0, 0, PAGE, 4]] * 600]:
        writer.write(event)
    partial = tmp_path / "copy"
    partial.write_bytes((tmp_path / "t.partial").read_bytes())
    writer.discard()
    with pytest.raises(InputError, match=r"truncated after 511 events.*record it again"):
        read(partial)
    _, events, end = read(partial, allow_truncated=True)
    assert events[:2] == [EVENTS[0], ["madvise", 0, 0, PAGE, 4]]
    assert end == End(511, interrupted=True, status=None)


def test_writer_follows_a_link(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "real")[1] == EVENTS


@pytest.mark.parametrize("place", ["missing/t", "."])
def test_unwritable_output(tmp_path, place):
    with pytest.raises(InputError, match="cannot write the trace"):
        TraceWriter(tmp_path / place, HEADER)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk():
    writer = TraceWriter("/dev/full", HEADER)
    with pytest.raises(InputError, match="No space left on device"):
        writer.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: the trace stops within its header"),
        (b"plain text", "not a trace: Not a gzipped file"),
        (zipped(b""), "stops within its header"),
        (zipped(b"{}\n"), "no rmaplab-trace header"),
        (zipped(b"[1]\n"), "no rmaplab-trace header"),
        (zipped(b"nonsense\n"), "line 1: not JSON"),
        (zipped(b"\xff\xfe\xfd\n"), "line 1: not"),
        (zipped(b"[" * 200_000 + b"\n"), "nested too deep"),
        (zipped(b"1" * 5000 + b"\n"), "not JSON"),
        (zipped(b" " * ((1 << 24) + 1)), "longer than"),
        (zipped(b'{"rmaplab-trace":2}\n'), "made by a newer rmaplab.*this one reads version 1"),
        (zipped(b'{"rmaplab-trace":0}\n'), "no trace format 0"),
        (zipped(b'{"rmaplab-trace":true}\n'), "no rmaplab-trace header"),
        (zipped(b'{"rmaplab-trace":1,"command":"x"}\n'), "command is not"),
        (zipped(b'{"rmaplab-trace":1,"command":[],"arch":1}\n'), "arch is not"),
        (zipped(b'{"rmaplab-trace":1,"command":[],"arch":"","kernel":"","page_size":4095}\n'), "page_size"),
    ],
)
def test_bad_header(tmp_path, content, reason):
    path = tmp_path / "bad.trace"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (["jump", 0], "unknown event kind 'jump'"),
        ([], "starts with its kind"),
        ([1], "starts with its kind"),
        (7, "starts with its kind"),
        (["exit"], "0 fields where 1"),
        (["exit", 0, 0], "2 fields where 1"),
        (["exit", 9], "task 9 names no living task"),
        (["exit", True], "task True names no living task"),
        (["munmap", 1, 0, PAGE], "names no living task"),
        (["munmap", 0, 1, PAGE], "address 1 is not a page-aligned"),
        (["munmap", 0, 0, -PAGE], "length -4096 is not"),
        (["munmap", 0, 1 << 57, PAGE], "address .* below 2"),
        (["munmap", 0, 4096.0, PAGE], "address 4096.0"),
        (["brk", 0, 1, 1 << 57], "new_end"),
        (["fork", 0, 2], "child 2 is not the next task number"),
        (["share", 0, 1, "house"], "sharing 'house' is none of"),
        (["mmap", 0, 0, PAGE, 1, -1, 0, None], "flags -1"),
        (["mmap", 0, 0, PAGE, 1, 1, 0, 5], "name 5"),
        (["other", 0, None], "call None"),
        (["anon", 0, []], "runs"),
        (["anon", 0, [[PAGE, 0]]], "runs"),
        (["anon", 0, [[PAGE, 2], [PAGE, 1]]], "runs"),
        (["anon", 0, [[(1 << 57) - PAGE, 2]]], "runs"),
        (["exec", 0, "x", [[0, PAGE, "rwxq", 0, ""]]], "areas"),
        (["exec", 0, "x", [[PAGE, PAGE, "rwxp", 0, ""]]], "areas"),
        (["exec", 0, "x", [[0, PAGE, "rwxp", 0]]], "areas"),
    ],
)
def test_bad_event_names_line_and_reason(tmp_path, event, reason):
    path = write_lines(tmp_path / "bad.trace", *lines_of([["exec", 0, "x", []], event]))
    with pytest.raises(InputError, match=rf"line 3: .*{reason}"):
        read(path)


def test_first_event_must_be_the_exec(tmp_path):
    with pytest.raises(InputError, match="first event must be the exec of task 0"):
        read(write_lines(tmp_path / "t", *lines_of([["exit", 0]])))


def test_dead_tasks_stay_dead(tmp_path):
    events = [["exec", 0, "x", []], ["fork", 0, 1], ["exit", 1], ["exit", 1]]
    with pytest.raises(InputError, match="line 5: exit: task 1 names no living task"):
        read(write_lines(tmp_path / "t", *lines_of(events)))


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (b'{"end":{"events":5,"interrupted":false,"status":0}}', "counts 5 events, the trace holds 1"),
        (b'{"end":{"events":1,"interrupted":1,"status":0}}', "damaged end record"),
        (b'{"end":{"events":1,"interrupted":true,"status":-1}}', "damaged end record"),
        (b'{"end":7}', "no end record"),
        (b'{"more":7}', "no end record"),
        (b'{"end":{"events":1,"interrupted":false,"status":0}}\n[]', "something follows the end record"),
    ],
)
def test_bad_end(tmp_path, last, reason):
    with pytest.raises(InputError, match=reason):
        read(write_lines(tmp_path / "t", *lines_of([["exec", 0, "x", []]])[:-1], last))


def test_missing_file_directory_and_closed_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        TraceReader(tmp_path / "none")
    with pytest.raises(InputError, match="Is a directory"):
        TraceReader(tmp_path)
    closed = write(tmp_path / "closed")
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read any file")
    with pytest.raises(InputError, match="Permission denied"):
        TraceReader(closed)


def test_version_is_one():
    assert FORMAT_VERSION == 1


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corruption_raises_only_input_errors(tmp_path, valid, data):
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "corrupt"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert read(path)[1] == EVENTS  # the damage missed everything that counts


def test_every_truncation_is_noticed(tmp_path, valid):
    path = tmp_path / "short"
    for length in range(len(valid)):
        path.write_bytes(valid[:length])
        with pytest.raises(InputError, match=r"truncated|stops within|not a trace"):
            read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.lists(JSON, max_size=8))
def test_checker_never_fails_otherwise(kind, fields):
    checker = EventChecker(PAGE)
    checker.check(["exec", 0, "x", []])
    event = [kind, *fields]
    with contextlib.suppress(EventError):
        assert checker.check(event) is event
