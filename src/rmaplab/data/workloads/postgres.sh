#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# PostgreSQL with 30 connections at once, a process forked for each.
# Programs: postgres initdb pgbench (run as root it becomes the user postgres)
set -eu
if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"; fi
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
initdb -D "$work/data" --no-sync --auth=trust >/dev/null
cat >>"$work/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$work'
shared_buffers = 16MB
fsync = off
max_connections = 50
END
postgres -D "$work/data" >"$work/log" 2>&1 &
server=$!
until psql -h "$work" -d postgres -c 'select 1' >/dev/null 2>&1; do sleep 0.2; done
pgbench -h "$work" -i -q -s 1 postgres >/dev/null 2>&1
pgbench -h "$work" -c 30 -j 2 -t 15 postgres >/dev/null 2>&1
pgbench -h "$work" -c 8 -C -t 6 postgres >/dev/null 2>&1
kill -INT $server
wait $server || true
