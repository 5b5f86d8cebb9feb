"""Train a list of runs on this machine, in this process or in several parallel processes.

The processes share the runs as several commands do (:func:`claim`). The parent process shows the progress bar; the
others send it messages. They block Ctrl-C and SIGTERM. The parent receives the signal and tells the others, and each
stops after its current epoch. They also stop if the parent is gone.
"""

import multiprocessing
import pickle
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from utils.device import open_device
from utils.errors import InputError, Interrupted, deferred_interrupt
from utils.io import lock, write_json
from utils.training.run import POLL_SECONDS, Progress, Run, claim, failures, train_run

TrainAll = Callable[[Sequence[Run], Progress], None]  # trains on this machine or on a cluster
RETRIES = 3  # for a run whose node or process died
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def train_here(runs: Sequence[Run], progress: Progress, device: torch.device, jobs: int = 1) -> None:
    """A :data:`TrainAll` on this machine.

    Args:
        jobs: number of processes that train in parallel and share the threads of this one. With 1, this one trains.
    """
    if jobs > 1:
        _train_in_processes(runs, progress, device, jobs)
        return
    for run in claim(runs, progress):
        train_run(run, device, progress)


def _train_in_processes(runs: Sequence[Run], progress: Progress, device: torch.device, jobs: int) -> None:
    """Train in ``jobs`` processes.

    If a process is killed, the others train its run. If all are killed, perhaps because together they need too much
    memory, one new process continues alone. A run that has killed more than RETRIES processes is recorded as failed.

    Raises:
        Exception: the error of a process, after the others have finished their epochs.
        Interrupted: Ctrl-C or SIGTERM.
    """
    left = {run.folder: run for run in runs if not run.finished}
    for data in {id(run.data): run.data for run in left.values()}.values():
        data.prepare([run.config for run in left.values() if run.data is data])
    jobs = min(jobs, len(runs))
    # not divided by the number of runs left: a resumed command uses as many threads and gets the same bits
    threads = max(1, torch.get_num_threads() // max(1, jobs))
    task = runs, failures(runs), device, threads
    deaths: dict[Path | None, list[str]] = defaultdict(list)  # None: processes that had no run
    with deferred_interrupt() as interrupted:
        while left:
            with _processes(min(jobs, len(left)), task) as processes:
                _follow(processes, left, progress, deaths, interrupted)
            if interrupted():
                raise Interrupted
            jobs = 1
            if len(deaths[None]) > RETRIES:
                raise InputError(f"--jobs: the processes die before training starts ({deaths[None][-1]})")
            for run in [run for folder, run in left.items() if len(deaths[folder]) > RETRIES]:
                with lock(run.folder) as mine:  # another command may train it by now
                    if mine:
                        error = f"its process died {len(deaths[run.folder])} times ({deaths[run.folder][-1]})"
                        write_json(run.folder / "error.json", {"error": error})
                        progress.finish(left.pop(run.folder))


@contextmanager
def _processes(count: int, task: tuple) -> Iterator[dict[Connection, BaseProcess]]:
    """Start processes, send them their task, and end them on exit.

    On an error, each process finishes its epoch first. Otherwise (when everything is trained, or on a second Ctrl-C),
    the processes are killed. The task is pickled without torch's shared memory, which may be small in a container.
    """
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # otherwise the first process starts it, which unblocks both signals
    processes = {}
    try:
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there,))
            before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)  # the process inherits the mask
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            there.close()  # otherwise it stays open when the process ends
            processes[here] = process
        data = pickle.dumps(task)
        for connection in processes:  # they import torch in parallel
            with suppress(ConnectionError):  # the process died
                connection.send_bytes(data)
        del data
        yield processes
    except Exception:
        for connection in processes:
            connection.close()
        for process in processes.values():
            process.join()
        raise
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def _follow(
    processes: dict[Connection, BaseProcess],
    left: dict[Path, Run],
    progress: Progress,
    deaths: dict[Path | None, list[str]],
    interrupted: Callable[[], bool],
) -> None:
    """Forward the processes' messages to the bar until everything is trained or all processes have ended.

    Args:
        processes, left: processes and runs that have ended are removed.
        deaths: how processes died, by the folder of their run; new deaths are added.
    """
    has: dict[Connection, Path] = {}
    error, stopped = None, False
    while processes and left:
        if (error or interrupted()) and not stopped:
            stopped = True
            for connection in processes:
                with suppress(ConnectionError):
                    connection.send("stop")
        for connection in wait(list(processes), POLL_SECONDS):
            try:
                kind, *values = connection.recv()
            except (EOFError, OSError):
                process = processes.pop(connection)
                process.join()
                if process.exitcode:
                    folder, how = has.get(connection), _how(process.exitcode)
                    deaths[folder].append(how)
                    progress.write(f"{left.get(folder, 'a job')}: its process died ({how})")
                continue
            if kind == "error":
                error = error or values[0]
            elif kind == "write":
                progress.write(values[0])
            elif run := left.get(values[0]):
                has[connection] = run.folder
                if kind == "finish":
                    del has[connection], left[run.folder]  # every process reports every finished run
                getattr(progress, kind)(run, *values[1:])
    if error:
        raise error


def _how(exitcode: int) -> str:
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"


def _work(connection: Connection) -> None:
    """The main function of each process."""
    with suppress(EOFError, ConnectionError):  # the parent was killed
        task = connection.recv_bytes()
        try:
            runs, failed_before, device, threads = pickle.loads(task)
            torch.set_num_threads(threads)
            open_device(device.type, runs[0].config.matmul_precision)
            told = _ToldProgress(connection)
            for run in claim(runs, told, failed_before):
                train_run(run, device, told)
        except Interrupted:
            pass
        except Exception as error:
            connection.send(("error", ExceptionWithTraceback(error, error.__traceback__)))


class _ToldProgress:
    """A :class:`Progress` that sends messages to the parent process."""

    def __init__(self, connection: Connection):
        self._connection = connection

    @property
    def stopped(self) -> bool:
        """Whether the parent asks to stop, or is gone."""
        return self._connection.poll()

    def start(self, run: Run) -> None:
        self._tell("start", run.folder)

    def epoch(self, run: Run, line: dict) -> None:
        self._tell("epoch", run.folder, line)

    def finish(self, run: Run) -> None:
        self._tell("finish", run.folder)

    def write(self, line: str) -> None:
        self._tell("write", line)

    def _tell(self, *message: object) -> None:
        with suppress(ConnectionError):  # the parent was killed; the run must still be saved
            self._connection.send(message)
