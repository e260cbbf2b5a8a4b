#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A parallel build: make -j4 runs gcc on 12 files of C and links them.
# Programs: make gcc
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
	cat >part$n.c <<END
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return strcmp(a, b); }
double part$n(double x)
{
	char words[64][16];
	for (int i = 0; i < 64; i++)
		snprintf(words[i], sizeof words[i], "%d", i * $n % 61);
	qsort(words, 64, sizeof words[0], compare);
	return sqrt(x) + atof(words[$n]);
}
END
done
cat >main.c <<'END'
#include <stdio.h>
double part1(double), part12(double);
int main(void) { return printf("%f\n", part1(2) + part12(3)) < 0; }
END
cat >Makefile <<'END'
objects := main.o $(patsubst %,part%.o,1 2 3 4 5 6 7 8 9 10 11 12)
program: $(objects) ; gcc -o $@ $^ -lm
%.o: %.c ; gcc -O1 -c -o $@ $<
END
make -s -j4 program
./program >/dev/null
