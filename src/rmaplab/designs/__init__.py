# SPDX-License-Identifier: GPL-2.0-only
"""Other reverse maps than the kernel's, as classes that override its functions; `rmaplab list designs` shows them."""
