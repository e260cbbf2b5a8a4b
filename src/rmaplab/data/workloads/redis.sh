#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Redis saves in the background while clients write: the parent's pages are copied one by one under a live child.
# Programs: redis-server redis-cli redis-benchmark
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
socket=$work/socket
redis-server --port 0 --unixsocket "$socket" --dir "$work" --save '' --appendonly no --rdb-key-save-delay 20 >"$work/log" &
server=$!
until redis-cli -s "$socket" ping >/dev/null 2>&1; do sleep 0.1; done
redis-benchmark -s "$socket" -q -n 20000 -r 20000 -d 300 -t set >/dev/null
for round in 1 2 3 4; do
	redis-cli -s "$socket" bgsave >/dev/null
	redis-benchmark -s "$socket" -q -n 4000 -r 20000 -d 300 -c 10 -t set,lpush >/dev/null
	while redis-cli -s "$socket" info persistence | grep -q bgsave_in_progress:1; do sleep 0.1; done
done
redis-cli -s "$socket" shutdown nosave >/dev/null 2>&1 || true
wait $server
