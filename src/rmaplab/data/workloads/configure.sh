#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What a configure script does: a big shell that forks for every test, pipes, sed, and a compiler now and then.
# Programs: bash sed grep gcc
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
declare -A answers
for name in stdio.h stdlib.h string.h unistd.h fcntl.h sys/mman.h sys/wait.h no_such.h; do
	printf '#include <%s>\nint main(void) { return 0; }\n' "$name" >conftest.c
	if gcc -c conftest.c -o conftest.o 2>conftest.err; then answers[$name]=yes; else answers[$name]=no; fi
done
for number in $(seq 1 150); do
	key=$(echo "test number $number" | sed 's/[^a-z0-9]/_/g')
	value=$(expr "x$key" : 'x\(.*\)_[0-9]*')
	answers[$key]=$(echo "${value}_$(printf '%s' "$key" | grep -c _)")
	(cache=$(printf '%s=%s\n' "$key" "${answers[$key]}"); echo "$cache") >>config.cache
done
for name in "${!answers[@]}"; do echo "s,@$name@,${answers[$name]},"; done >config.sed
for part in 1 2 3 4 5 6 7 8; do
	sed -f config.sed <config.cache >part$part.out &
done
wait
