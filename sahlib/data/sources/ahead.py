"""Reading scans ahead: the next ones are decoded by other threads while this one is resized and written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sahlib.data.scan import Scan
from sahlib.workspace import cores


@dataclass(frozen=True)
class Ahead:
    """The scans of a source in its order, at most one per processor core decoded before it is asked for.

    Decompression leaves Python's lock, so threads do; no scan is copied between processes.
    """

    source: object

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Scan]:
        readers, waiting = ThreadPoolExecutor(cores()), deque()
        try:
            for index in range(len(self)):
                waiting.append(readers.submit(self.source.scan, index))
                if len(waiting) > cores():
                    yield waiting.popleft().result()
            yield from (scan.result() for scan in waiting)
        finally:
            readers.shutdown(cancel_futures=True)
