# SPDX-License-Identifier: GPL-2.0-only
"""The fast core: the specification's logic over record arrays, compiled by Numba (extra ``fast``).

:mod:`rmaplab.kernel` stays the specification; twin tests hold this equal to
it.  Importing this package needs nothing; its modules need Numba.
"""
