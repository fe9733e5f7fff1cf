"""The time that a run still takes, against arithmetic by hand."""

import pytest
from snakemake_records import begun, failed, finished, planned, progress, record

from blockcoupling.study.course import Course


def course(*records) -> Course:
    made = Course()
    for each in records:
        made.note(each)
    return made


def ended(job: int, rule: str, began: float, at: float):
    return [begun(job, rule, began), finished(job, at)]


def test_jobs_are_counted():
    found = course(planned(a=2, b=1), begun(1, "a"), progress(1, 3))
    assert (found.done, found.total) == (1, 3)
    assert found.running[1].what == "Do a 1"
    assert course(begun(2, "a", rule_msg=None)).running[2].what == "a"


def test_no_time_is_estimated_from_too_few_jobs():
    assert course(planned(a=4), *ended(1, "a", 0, 5), *ended(2, "a", 0, 5)).left(5) is None


def test_a_job_takes_as_long_as_others_of_its_rule_or_as_the_median_rule():
    found = course(
        planned(a=4, b=2, c=2, d=1),
        *ended(1, "a", 0, 10),
        *ended(2, "a", 0, 30),
        *ended(3, "b", 0, 80),
        *ended(4, "c", 0, 60),
    )
    # 2 of a in 20 s each, 1 of b in 80 s, 1 of c in 60 s, 1 of d in the median of these.
    assert found.left(100) == pytest.approx(2 * 20 + 80 + 60 + 60)


def test_only_the_last_jobs_of_a_rule_count():
    slow = [each for job in range(9) for each in ended(job, "a", 0, 100)]
    fast = [each for job in range(10, 15) for each in ended(job, "a", 0, 2)]
    assert course(planned(a=20), *slow, *fast).left(100) == pytest.approx(6 * 2)


def test_running_jobs_share_the_work_and_have_done_part_of_it():
    three = [each for job in (1, 2, 3) for each in ended(job, "a", 0, 10)]
    found = course(planned(a=7), *three, begun(4, "a", 20), begun(5, "a", 26))
    assert found.left(28) == pytest.approx((4 * 10 - 8 - 2) / 2)
    assert found.left(1000) == pytest.approx((4 * 10 - 10 - 10) / 2)  # overdue: no less than that
    found.note(finished(4, 30))  # the next job is about to begin in its place
    assert found.left(30) == pytest.approx((3 * 10 - 4) / 2)


def test_a_failed_job_is_known_until_it_is_tried_again():
    found = course(planned(a=1), begun(1, "a"), failed(1))
    assert found.running == {}
    assert found.failed[1].what == "Do a 1"
    found.note(begun(1, "a"))
    assert found.failed == {}


def test_other_records_change_nothing():
    assert course(record(None, msg="Building DAG of jobs...")) == Course()
