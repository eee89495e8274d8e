"""Whether a person watches: the one place that knows.

A headless run leaves still pictures and plain lines where a person at JupyterLab gets widgets and moving bars.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

VARIABLE = "SAHLIB_HEADLESS"


def is_headless() -> bool:
    """True where nobody watches: in a kernel that `unattended` started, and wherever there is no notebook at all."""
    return os.environ.get(VARIABLE) == "1" or not _in_a_kernel()


@contextlib.contextmanager
def unattended() -> Iterator[None]:
    """Kernels started meanwhile know that they are headless; they inherit this process's environment."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _in_a_kernel() -> bool:
    """Of the shells that IPython has, only that of a kernel can show a widget."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
