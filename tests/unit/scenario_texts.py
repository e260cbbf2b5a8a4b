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
walk P0 A[0] by=offset
snapshot before
P1 exit
fail 2
P0 fork P1
expect P0 fork ENOMEM
fail 1 tree
P0 mremap A[1..2] C
P0 mremap C D pages=4 at=0x7f0000100000 dontunmap
P0 mremap D C fixed=A[0]
P0 mremap C C pages=1
P0 madvise A guard-install
P0 mlock A
P0 munlock A[0]
P0 brk +2
P0 brk -1
P0 write heap[0]
P0 stack-grow 2
P0 read stack[2]
P0 swapout A[0] cached
P0 swapout A[1]
P0 swapin A[0..1]
P0 pin A[0]
P0 pin A[1] r
P0 unpin A[0..1]
P0 migrate A[0]
P0 uffd-move A[0] B[0]
P0 ksm A[0..1] zeros
ksmd
P0 split-folio A[0]
expect P0 split-folio ok
par { P0 write A[0] ; P0 read A[0] || P0 munmap A || P0 mmap E 1 shared }
P0 read E
P0 exec
P0 read stack[32]
expect anon_vmas 3
expect swap_slots 0
expect P1 vmas 2
expect invariants hold
expect violates AV-007
"""
