# SPDX-License-Identifier: GPL-2.0-only
"""Programs that hold still at the height of their work.

They make a file ``ready`` then, and go on when a pipe ``done`` has been written to.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

__all__ = ["WORKLOADS", "Workload"]

MEMORY = """
import mmap, os, sys
# Neighbours differ in their rights, so that none merge.
memory = [mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=3 | (4 if number % 2 else 0)) for number in range(60)]
def write(number):
    for block in memory:
        block[0] = number
write(0)
"""

POOL = (
    MEMORY
    + """
holds = []
for number in range({size}):
    readable, writable = os.pipe()
    if os.fork() == 0:
        write(number % 256)
        os.close(writable)
        os.read(readable, 1)
        os._exit(0)
    os.close(readable)
    holds.append(writable)
open("ready", "w").close()
open("done").read()
for writable in holds:
    os.close(writable)
for _ in holds:
    os.wait()
"""
)

FAMILY = (
    MEMORY
    + """
def live(depth):
    write(depth)
    if depth == {size}:
        open("ready", "w").close()
    elif os.fork() == 0:
        live(depth + 1)
    open("done").read()
    os._exit(0)
live(0)
"""
)

POSTGRES = r"""
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
initdb -D data --no-sync --auth=trust >/dev/null
cat >>data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$PWD'
shared_buffers = 16MB
fsync = off
max_connections = {size}
END
postgres -D data >log 2>&1 &
server=$!
until psql -h "$PWD" -d postgres -c 'select 1' >/dev/null 2>&1; do sleep 0.2; done
pgbench -h "$PWD" -i -q -s 1 postgres >/dev/null 2>&1
pgbench -h "$PWD" -n -c $(({size} - 10)) -T 4 -f hold.sql postgres >/dev/null 2>&1 &
sleeping="select count(*) from pg_stat_activity where query like '%sleep%'"
until [ "$(psql -h "$PWD" -d postgres -Atc "$sleeping")" -gt $(({size} - 11)) ]; do sleep 0.3; done
: >ready
read -r _ <done || true
kill -INT $server
wait
"""

PREFORK = r"""
modules=/usr/lib/apache2/modules
cat >httpd.conf <<END
ServerRoot "$PWD"
ServerName localhost
Listen 127.0.0.1:18432
PidFile "$PWD/pid"
ErrorLog "$PWD/error.log"
DocumentRoot "$PWD"
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
StartServers {size}
MinSpareServers {size}
MaxSpareServers {size}
ServerLimit {size}
MaxRequestWorkers {size}
END
[ "$(id -u)" != 0 ] || printf 'User www-data\nGroup www-data\n' >>httpd.conf
setsid apache2 -DFOREGROUND -f "$PWD/httpd.conf" >/dev/null 2>&1 &
server=$!
until ab -q -n 2000 -c 50 http://127.0.0.1:18432/ >/dev/null 2>&1; do sleep 0.2; done
until set -- $(cat /proc/$server/task/$server/children) && [ $# -ge {size} ]; do sleep 0.5; done
sleep 1
: >ready
read -r _ <done || true
kill -TERM $server
wait
"""


class Workload(NamedTuple):
    """A script with a ``{size}``, the program that runs it, the programs it needs."""

    script: str
    interpreter: str
    size: int
    needs: tuple[str, ...]


WORKLOADS = {
    "pool of forked workers": Workload(POOL, sys.executable, 150, ()),
    "family, all generations alive": Workload(FAMILY, sys.executable, 60, ()),
    "PostgreSQL": Workload(POSTGRES, "/bin/sh", 150, ("pgbench", "setpriv")),
    "Apache, prefork": Workload(PREFORK, "/bin/sh", 400, ("apache2", "ab", "setsid")),
}
