"""What runs there are: what lies on disk is told as it is, nothing waits or takes a lock, and nothing breaks it."""

import fcntl
import os
import shutil
import threading

import pytest
from filelock import FileLock
from helpers.fabricated_sweep import begin, counts_of, finish, put

from sahlib.sweep import overview, run_states
from sahlib.sweep.run_states import FAILED, INTERRUPTED, TESTED, TRAINED, TRAINING


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def locks():
    held = []
    yield held
    for lock in held:
        lock.release()


def only(runs):
    (seen,) = run_states.gather(runs)
    return seen


# States


def test_trained_and_tested(runs):
    path = finish(begin(runs))
    assert only(runs).state == TRAINED
    counts_of(["A"]).to_csv(path / "counts.csv", index=False)
    assert only(runs).state == TESTED


def test_training_says_its_epoch(runs, locks):
    path = begin(runs, epochs=1, held_by=locks)
    seen = only(runs)
    assert (seen.state, seen.remark) == (TRAINING, "1 of 2 epochs done.")
    assert locks[-1].is_locked
    (path / "state.safetensors").unlink()
    assert only(runs).remark == "0 of 2 epochs done."


def test_interrupted_says_its_epoch_and_the_way_on(runs, locks):
    begin(runs, epochs=1, held_by=locks)
    locks.pop().release()
    seen = only(runs)
    assert seen.state == INTERRUPTED
    assert seen.remark == "After 1 of 2 epochs; the same command goes on from there."


def test_failed_says_why_until_it_begins_again(runs, locks):
    path = begin(runs, epochs=1)
    (path / "failed.txt").write_text("The loss became nan;\n lower learning_rate.\n")
    seen = only(runs)
    assert (seen.state, seen.remark) == (FAILED, "The loss became nan; lower learning_rate.")
    locks.append(FileLock(path / ".lock"))
    locks[-1].acquire()
    assert only(runs).state == TRAINING


def test_a_look_takes_no_lock_from_anyone_and_makes_none(runs, locks):
    free = begin(runs, seed=0)
    left = begin(runs, seed=1, held_by=locks)
    locks.pop().release()
    run_states.gather(runs)
    assert not (free / ".lock").exists()
    with FileLock(left / ".lock", timeout=0):  # nobody else has it
        assert [seen.state for seen in run_states.gather(runs)] == [INTERRUPTED, TRAINING]


def test_two_looks_do_not_take_each_other_for_a_training(runs):
    path = begin(runs)
    with open(path / ".lock", "w+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert only(runs).state == INTERRUPTED


def test_empty_folders_and_other_files_are_no_runs(runs):
    (runs / "phantom" / "unet" / "seed0-abc").mkdir(parents=True)
    (runs / "notebooks").mkdir()
    (runs / "phantom" / "unet" / "seed1-file").write_text("")
    assert run_states.gather(runs) == run_states.gather(runs / "nowhere") == []


# What others wrote, or damaged


@pytest.mark.parametrize(
    "text", ["", "slice_id,patient_id,tp,fp,fn,tn\n", "a,b\n1,2\n", "slice_id,patient_id,tp,fp,fn,tn\ns,p,1,2,\n", '"']
)
def test_damaged_counts_are_a_failed_run_with_a_way_out(runs, text):
    (finish(begin(runs)) / "counts.csv").write_text(text)
    seen = only(runs)
    assert (seen.state, seen.remark) == (FAILED, "Its counts.csv is damaged; delete that file and run again.")


def test_a_damaged_state_is_named(runs):
    path = begin(runs, epochs=1)
    (path / "state.safetensors").write_bytes(b"\0" * 20)
    seen = only(runs)
    assert (seen.state, seen.remark) == (FAILED, "Its state.safetensors is damaged; delete that file and run again.")
    assert seen.name.startswith("U-Net, paper, seed 0, in ")


def test_a_training_that_an_older_version_left(runs):
    """It has a saved state, and nothing that tells its recipe."""
    path = begin(runs, epochs=2)
    (path / "begun.json").unlink()
    seen = only(runs)
    assert (seen.state, seen.remark) == (INTERRUPTED, "After 2 epochs; the same command goes on from there.")
    assert seen.name == f"U-Net, in phantom/unet/{path.name}"


@pytest.mark.parametrize("end", ["finish", "fail"])
@pytest.mark.parametrize("read", range(8))
def test_a_training_that_ends_between_two_reads(runs, locks, monkeypatch, read, end):
    """Whichever file is looked at when it ends: it is seen as it was before, or as it is after."""
    path = begin(runs, epochs=1, held_by=locks)
    reads = iter(range(100))

    def ends_before(look):
        def looked(file, *arguments):
            if next(reads) == read:
                if end == "finish":
                    finish(path)
                else:
                    put(path / "failed.txt", "The disk is full.")
                locks[0].release()
            return look(file, *arguments)

        return looked

    for name in ("_text", "_epochs", "_is_held"):
        monkeypatch.setattr(run_states, name, ends_before(getattr(run_states, name)))
    assert only(runs).state in {TRAINING, TRAINED if end == "finish" else FAILED}


def test_runs_that_begin_end_and_vanish_meanwhile(runs):
    """Looks go on beside a writer; a run that is trained under its lock is never taken for a broken one."""
    stop, states, errors = threading.Event(), set(), []

    def look():
        try:
            while not stop.is_set():
                seen = run_states.gather(runs)
                overview.table(seen)
                states.update(one.state for one in seen)
        except Exception as error:  # noqa: BLE001 (told by the test)
            errors.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    counts = counts_of(["A", "B"])
    for seed in range(60):
        held = []
        path = finish(begin(runs, seed=seed, epochs=1, held_by=held))
        held[0].release()
        put(path / "counts.csv", counts.to_csv(index=False))
        if seed % 2:
            gone = runs.parent / "gone"
            os.replace(path, gone)
            shutil.rmtree(gone)
    stop.set()
    looking.join()
    assert errors == []
    assert states <= {TRAINING, TRAINED, TESTED}
    assert len(run_states.gather(runs)) == 30
