"""Who watches, and what is shown of a long step: a bar in a kernel that a person looks at, lines elsewhere."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import nbformat
import pytest

from sahlib import progress, reproduce


@pytest.fixture
def watched(monkeypatch):
    """As in a kernel under JupyterLab, with a bar that keeps what it was told."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    bars = []

    class Bar:
        def __init__(self, total, initial, desc):
            self.total, self.done, self.label, self.postfix, self.closed = total, initial, desc, {}, False
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.closed = True

        def set_postfix(self, numbers):
            self.postfix = numbers

        def update(self):
            self.done += 1

    monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm=Bar))
    return bars


def test_a_plain_python_process_is_headless(monkeypatch):
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    assert progress.is_headless()


def test_a_shell_without_a_kernel_is_headless(monkeypatch):
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert progress.is_headless()


def test_a_kernel_is_headless_only_where_nobody_watches(watched):
    assert not progress.is_headless()
    with progress.unattended():
        assert progress.is_headless()
    assert not progress.is_headless() and progress.VARIABLE not in os.environ


def test_what_was_set_before_is_set_again_even_after_an_error(monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, "0")
    with pytest.raises(KeyError), progress.unattended():
        raise KeyError
    assert os.environ[progress.VARIABLE] == "0"


def test_headless_lines_are_printed_as_they_are_given(capsys):
    with progress.bar(3, "U-Net") as advance:
        advance("epoch 1/3: loss 0.900", loss=0.9)
        advance("", loss=0.8)
    assert capsys.readouterr().out == "epoch 1/3: loss 0.900\n"


@pytest.mark.parametrize(
    ("total", "numbers"), [(3, [1, 2, 3]), (25, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]), (1000, range(100, 1001, 100))]
)
def test_a_long_iteration_prints_ten_lines_and_no_carriage_return(capsys, total, numbers):
    assert list(progress.over("scans")(range(total))) == list(range(total))
    assert capsys.readouterr().out == "".join(f"scans: {number} of {total}\n" for number in numbers)


def test_nothing_to_do_prints_nothing(capsys):
    assert list(progress.over("scans")([])) == [] and capsys.readouterr().out == ""


def test_a_person_sees_one_bar_with_the_numbers_and_no_line(watched, capsys):
    with progress.bar(5, "U-Net, seed 0", done=2) as advance:
        advance("epoch 3/5: loss 0.512", loss=0.5123, validation_Dice=0.25)
    (bar,) = watched
    assert (bar.total, bar.done, bar.label, bar.closed) == (5, 3, "U-Net, seed 0", True)
    assert bar.postfix == {"loss": "0.512", "validation Dice": "0.250"} and capsys.readouterr().out == ""


def test_a_bar_over_scans_ends_full_and_is_closed_when_the_loop_breaks(watched):
    list(progress.over("scans")("abc"))
    steps = progress.over("scans")("abc")
    next(steps)
    steps.close()
    assert [(bar.done, bar.closed) for bar in watched] == [(3, True), (0, True)]


def test_the_kernels_of_a_headless_run_know_it_and_leave_no_socket(tmp_path, capsys):
    notebook = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    parameters = nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]})
    notebook.cells = [
        parameters,
        nbformat.v4.new_code_cell("from sahlib import progress\nprint(progress.is_headless())"),
    ]
    nbformat.write(notebook, tmp_path / "one.ipynb")
    with progress.unattended(), reproduce.own_kernel():
        assert reproduce._execute(tmp_path / "one.ipynb", tmp_path / "done.ipynb", {})
    assert "True" in capsys.readouterr().out and progress.VARIABLE not in os.environ
    assert {path.name for path in tmp_path.iterdir()} == {"one.ipynb", "done.ipynb"}
