# SPDX-License-Identifier: GPL-2.0-only
"""The trace file: gzip of JSON lines, written and read as a stream.

A header object, one array per event, and an end object, one a line; see
docs/trace-format.md for every field. Neither side ever holds more than a
batch of lines in memory.
"""

from rmaplab.workload.trace_events import KINDS, Event
from rmaplab.workload.trace_reader import TraceReader
from rmaplab.workload.trace_records import FORMAT_VERSION, End, Header
from rmaplab.workload.trace_writer import TraceWriter

__all__ = ["FORMAT_VERSION", "KINDS", "End", "Event", "Header", "TraceReader", "TraceWriter"]
