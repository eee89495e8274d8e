"""How far a long step has come: a bar in JupyterLab, plain lines where nobody watches.

>>> for scan in over("scans")(source): ...

>>> with bar(50, "U-Net, seed 0") as advance:
...     advance("epoch 1/50: loss 0.912", loss=0.912)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from .headless import is_headless

LINES = 10  # that a headless run prints of one iteration, however long


@contextlib.contextmanager
def bar(total: int, label: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields advance(line, **numbers), to be called after each of the steps from `done` to `total`.

    The bar moves by one step and shows the numbers behind it; headless, `line` is printed instead, unless it is empty.
    """
    if is_headless():
        yield _print_line
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


def _print_line(line: str = "", **numbers: float) -> None:
    if line:
        print(line, flush=True)
