"""How far a long step has come: a bar in JupyterLab, plain lines where nobody watches; and whether a person watches.

A headless run leaves still pictures and plain lines where a person at JupyterLab gets widgets and moving bars.

>>> for scan in over("scans")(source): ...

>>> with bar(50, "U-Net, seed 0") as advance:
...     advance("epoch 1/50: loss 0.912", loss=0.912)
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator

VARIABLE = "SAHLIB_HEADLESS"
LINES = 10  # that a headless run prints of one iteration, however long


@contextlib.contextmanager
def bar(total: int, label: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields advance(line, **numbers), to be called after each of the steps from `done` to `total`.

    The bar moves by one step and shows the numbers behind it; headless, `line` is printed instead, unless it is empty.
    """
    if is_headless():
        yield lambda line="", **numbers: line and print(line, flush=True)
        return
    from tqdm.notebook import tqdm

    with tqdm(total=total, initial=done, desc=label) as shown:

        def advance(line: str = "", **numbers: float) -> None:
            shown.set_postfix({name.replace("_", " "): f"{value:.3f}" for name, value in numbers.items()})
            shown.update()

        yield advance


def over(label: str) -> Callable[[Iterable], Iterator]:
    """What wraps an iteration over a sized iterable, for a `progress` argument as that of slices.prepare."""

    def wrap(items: Iterable) -> Iterator:
        total = len(items)
        with bar(total, label) as advance:
            for number, item in enumerate(items, 1):
                yield item
                reached = number * LINES // total > (number - 1) * LINES // total
                advance(f"{label}: {number} of {total}" if reached else "")

    return wrap


def is_headless() -> bool:
    """True where nobody watches: in a kernel that `unattended` started, and wherever there is no notebook at all."""
    return os.environ.get(VARIABLE) == "1" or not _in_a_kernel()


def unattended() -> contextlib.AbstractContextManager[None]:
    """Kernels started meanwhile know that they are headless; they inherit this process's environment."""
    return environment(VARIABLE, "1")


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Within the block this process, and what it starts, has that environment variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _in_a_kernel() -> bool:
    """Of the shells that IPython has, only that of a kernel can show a widget."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
