# SPDX-License-Identifier: GPL-2.0-only
# Daemons that replace themselves: each generation forks its heir and exits, with a
# few helpers on the way.  Usage: sh generations.sh [GENERATIONS [WIDTH]]
generations=${1:-12} width=${2:-3}

generation() {
    history="$history $1"
    n=0
    while [ "$n" -lt "$width" ]; do
        n=$((n + 1))
        ( helper="$history $n"; : "$helper" )
    done
    [ "$1" -ge "$generations" ] || ( generation $(($1 + 1)) & )
}

generation 1
wait
