# SPDX-License-Identifier: GPL-2.0-only
"""How many branches of the specification the tests take, out of what coverage.py measured last.

    python tools/branches.py [--least 97]

Exit code 1 if kernel/ or series/ is under that share, in percent.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from coverage import Coverage

PARTS = ("kernel", "series")


def main() -> int:
    """Print the share of each part."""
    parser = argparse.ArgumentParser(description="The branches of kernel/ and series/ that the tests take.")
    parser.add_argument("--least", type=float, default=97, help="percent")
    options = parser.parse_args()
    coverage = Coverage()
    coverage.load()
    short = False
    for part in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.json"
            coverage.json_report(outfile=str(path), include=f"src/rmaplab/{part}/*")
            totals = json.loads(path.read_text(encoding="utf-8"))["totals"]
        taken, branches = totals["covered_branches"], totals["num_branches"]
        print(f"{part}: {taken:,} of {branches:,} branches ({taken / branches:.1%})")
        short = short or 100 * taken / branches < options.least
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
