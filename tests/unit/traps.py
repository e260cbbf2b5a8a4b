# SPDX-License-Identifier: GPL-2.0-only
"""A trap is a fact, with models that get it wrong; the facts are noted here as they are defined."""

from machine_parts import vma

from rmaplab.check.monitor import monitored
from rmaplab.series import SERIES

TRAPS = []  # number, fact, the series it is one of, the models that it is not one of


def trap(number, *naive, series=("v7.0", "v6.18")):
    """Note a fact, which is a function of a machine and its first process."""

    def note(fact):
        TRAPS.append((number, fact, series, naive))
        return fact

    return note


def machine(series, *mixins):
    """A watched machine of a series, or of a model with something else mixed in, and its first process."""
    kernel = monitored(type("Model", (*mixins, SERIES[series]), {}))()
    return kernel, kernel.spawn()


def active(process, index=0):
    return vma(process, index).anon_vma


def visits(process, area, page=0):
    return [visit.vma for visit in process.walk(area, page)]
