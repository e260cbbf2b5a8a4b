# SPDX-License-Identifier: GPL-2.0-only
"""What is read again all at once is what would have been read piece by piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.realkernel.memory import FaultError
from rmaplab.realkernel.prefetch import Prefetch


class Memory:
    """Bytes by address; others fault.  Counts how often it is asked."""

    def __init__(self, data):
        self.data, self.asked, self.fetched = data, 0, 0

    def read_many(self, addresses, size):
        self.asked += 1
        return [self.data[at][:size] if at in self.data else None for at in addresses]

    def read_places(self, places):
        self.fetched += 1
        if any(at not in self.data for at, _ in places):
            return None
        return b"".join(self.data[at][:size] for at, size in places)


def test_what_has_not_changed_is_fetched_in_one_go_and_not_read():
    memory = Memory({1: b"abcdefgh", 2: b"ABCDEFGH"})
    prefetch = Prefetch(memory)
    assert not prefetch.again()
    assert prefetch.read_many([1, 2], 4) == [b"abcd", b"ABCD"]
    assert prefetch.read(1, 8) == b"abcdefgh"
    asked = memory.asked
    assert prefetch.again()
    assert prefetch.again()
    assert (memory.asked, memory.fetched) == (asked, 2)
    assert prefetch.read_many([2, 1], 4) == [b"ABCD", b"abcd"]
    assert memory.asked == asked


def test_a_change_is_seen_and_read():
    memory = Memory({1: b"abcd", 2: b"ABCD"})
    prefetch = Prefetch(memory)
    prefetch.again()
    prefetch.read_many([1, 2], 4)
    memory.data[2] = b"EFGH"
    assert not prefetch.again()
    assert prefetch.read_many([1, 2], 4) == [b"abcd", b"EFGH"]
    memory.data[1] = b"efgh"
    assert not prefetch.again()
    assert prefetch.read(1, 4) == b"efgh"
    memory.data[2] = b"ijkl"  # which was not asked for the last time
    assert prefetch.again()


def test_what_faults_is_asked_for_every_time():
    memory = Memory({1: b"abcd"})
    prefetch = Prefetch(memory)
    prefetch.again()
    with pytest.raises(FaultError):
        prefetch.read(2, 4)
    assert prefetch.read_many([1, 2], 4) == [b"abcd", None]
    assert not prefetch.again()
    memory.data[2] = b"ABCD"
    assert not prefetch.again()
    assert prefetch.read_many([1, 2], 4) == [b"abcd", b"ABCD"]
    assert prefetch.read_many([], 4) == []


places = st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.sampled_from([4, 8])), max_size=6)


@given(st.lists(st.tuples(places, st.dictionaries(st.integers(0, 9), st.binary(min_size=8, max_size=8))), max_size=6))
def test_it_reads_what_is_there(rounds):
    memory = Memory({number: bytes([number]) * 8 for number in range(7)})
    prefetch = Prefetch(memory)
    before = None
    for asked, changes in rounds:
        memory.data.update(changes)
        found = [memory.read_many(addresses, size) for addresses, size in asked]
        if prefetch.again():
            assert before is not None
            for addresses, size, data in before:
                assert memory.read_many(addresses, size) == data
            continue
        assert [prefetch.read_many(addresses, size) for addresses, size in asked] == found
        before = [(addresses, size, data) for (addresses, size), data in zip(asked, found, strict=True)]
