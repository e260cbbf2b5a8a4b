# SPDX-License-Identifier: GPL-2.0-only
"""``python -m rmaplab``."""

import sys

from rmaplab.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
