# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios on which mutant series run, and how a mutant is registered with one."""

LIFE = """\
P0 mmap A 3
P0 write A
P0 fork P1
P1 fork P2
P1 write A[0]
P2 write A[1]
P1 mprotect A[2] r
P1 mprotect A[2] rw
P1 exit
P2 fork P3          # adopts P1's anon_vma
P2 exit
P3 write A
P0 munmap A[1]
walk P0 A[0]
P0 exit
P3 exit
"""
HEIRS = """\
P0 mmap A 1
P0 write A
P0 fork P1
P0 fork P2
P1 exit
"""
ALONE = """\
P0 mmap A 1
P0 read A
P0 write A
P0 exit
"""
NEIGHBOURS = """\
P0 mmap A 1 at=0x10001000
P0 write A
P0 mprotect A r
P0 mmap B 1 at=0x10000000
P0 fork P1
P0 mprotect A rw
P1 mprotect A rw
P1 write A
"""
STRANGERS = """\
P0 mmap A 1 at=0x10000000
P0 mmap B 1 at=0x10002000
P0 write A
P0 write B
P0 mmap C 1 at=0x10001000
P0 write C
"""
PAIR = """\
P0 mmap A 2
P0 write A
P0 mprotect A[1] r
P0 mprotect A[1] rw
"""
FAILED_FORK = """\
P0 mmap A 1
P0 write A
fail 3
P0 fork P1
"""
FAILED_MERGE = """\
P0 mmap A 1 at=0x10001000
P0 write A
P0 mprotect A r
P0 mmap B 1 at=0x10000000
fail 1
P0 mprotect A rw
"""
FAILED_SPLIT = """\
P0 mmap A 2
P0 write A
P0 fork P1
fail 2
P1 munmap A[0]
"""
GRANDCHILD = """\
P0 mmap A 1
P0 write A
P0 fork P1
P1 fork P2
"""


def registering(mutants):
    """Give the decorator that enters a mutant into the table."""

    def reports(*idents, on):
        """Register a mutant with the ids it must be reported for, and the scenario."""

        def register(mutant):
            mutants[mutant] = (idents, on)
            return mutant

        return register

    return reports
