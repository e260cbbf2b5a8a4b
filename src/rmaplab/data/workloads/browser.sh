#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A browser without a window: Chromium's zygote forks a process for each renderer, with hundreds of VMAs.
# Programs: chromium
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export HOME="$place" XDG_CONFIG_HOME="$place" XDG_CACHE_HOME="$place"
cat >"$place/page.html" <<'END'
<!doctype html><title>page</title><p id=out></p>
<iframe src="data:text/html,<p>one</p>"></iframe><iframe src="data:text/html,<p>two</p>"></iframe>
<script>
const rows = Array.from({length: 2000}, (_, i) => ({ key: i, text: "row " + i }));
document.getElementById("out").textContent = rows.map(row => row.text).join(" ");
</script>
END
timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
	--disable-component-update --disable-sync --user-data-dir="$place/profile" --dump-dom "$place/page.html" \
	>"$place/out" 2>"$place/err" || true
grep -q 'row 1999' "$place/out"
