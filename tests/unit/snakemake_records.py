"""Records of Snakemake's logger as it emits them, for tests of what reads them."""

from logging import ERROR, INFO, LogRecord
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

OUTPUT = "results/s/svd/small/step2/mine/svd.zarr/zarr.json"


def record(event: LogEvent | None, at: float = 0.0, msg: str = "", **about: Any) -> LogRecord:
    """A record of an event at some time, in seconds of the epoch."""
    level = ERROR if event in (LogEvent.JOB_ERROR, LogEvent.ERROR) else INFO
    made = LogRecord("snakemake", level, "x.py", 1, msg, (), None)
    made.created = at
    made.__dict__.update(event=event, **about)
    return made


def planned(at: float = 0.0, **stats: int) -> LogRecord:
    return record(
        LogEvent.RUN_INFO, at, "Job stats:", stats={**stats, "total": sum(stats.values())}
    )


def begun(job: int, rule: str = "extract", at: float = 0.0, **about: Any) -> LogRecord:
    known = {
        **{"rule_msg": f"Do {rule} {job}", "rule_name": rule, "output": [OUTPUT], "log": []},
        **{"wildcards": {"model": "small", "checkpoint": "step2", "dataset": "mine"}},
    }
    return record(LogEvent.JOB_INFO, at, jobid=job, **known | about)


def finished(job: int, at: float = 0.0) -> LogRecord:
    return record(LogEvent.JOB_FINISHED, at, f"Finished jobid: {job}", job_id=job)


def failed(job: int, at: float = 0.0, **about: Any) -> LogRecord:
    known = {"rule_msg": "", "rule_name": "extract", "output": [OUTPUT], "log": []}
    return record(LogEvent.JOB_ERROR, at, jobid=job, **known | about)


def progress(done: int, total: int, at: float = 0.0) -> LogRecord:
    return record(LogEvent.PROGRESS, at, done=done, total=total)
