# SPDX-License-Identifier: GPL-2.0-only
"""A scenario with every statement of the language."""

EVERYTHING = """\
P0 mmap A 4
P0 mmap B 0x10 at=0x7f0000000000 prot=rx file=libc shared   # every option
P0 write A
P0 read A[1]
P0 write A[0..3]
fail 3 nowait
P0 fork P1
expect P0 fork ok
P1 munmap A[1..2]
P1 mprotect A[0..1] none
walk P0 A[0]
snapshot before
P1 exit
fail 2
P0 fork P1
expect P0 fork ENOMEM
expect anon_vmas 3
expect P1 vmas 2
expect invariants hold
expect violates AV-007
"""
