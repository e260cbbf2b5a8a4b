#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A daemon that forks and lets the parent exit, for ever (here 120 times): each child writes a little and forks.

Programs: /usr/bin/python3
"""

import os

GENERATIONS = 120


def live() -> None:
    """One generation after the other, each the child of the one before."""
    memory = [bytearray(20_000) for _ in range(20)]
    for generation in range(GENERATIONS):
        memory[generation % len(memory)][0] = generation & 0xFF
        readable, writable = os.pipe()
        if os.fork():
            os.close(writable)
            os.read(readable, 1)  # the child runs: go
            os._exit(0)
        os.close(readable)
        os.write(writable, b"x")
        os.close(writable)


if __name__ == "__main__":
    live()
