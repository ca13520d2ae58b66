"""Clocks that a test moves."""

from concurrent.futures import Future


class Clock:
    """In place of the module `time`: a clock that only goes forward, and one that somebody may set."""

    def __init__(self):
        self.steady, self.wall = 1000.0, 1.8e9

    def go(self, seconds):
        """So much time passes."""
        self.steady += seconds
        self.wall += seconds

    def perf_counter(self):
        return self.steady

    monotonic = perf_counter

    def time(self):
        return self.wall


class AtOnce:
    """In place of a `ThreadPoolExecutor`: what is submitted is done before anything else."""

    def __init__(self, *args):
        pass

    def submit(self, function, *args):
        done = Future()
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self):
        pass
