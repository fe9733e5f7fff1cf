"""What jobs ask for: enough for a model of known size, and never less for a larger one."""

from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.study import Study
from blockcoupling.study.needs import (
    extract_needs,
    needs_of,
    nothing,
    record_needs,
    reduce_needs,
    score_needs,
)
from blockcoupling.study.sizes import UNKNOWN_SIZE, parameters


def study(size=None, device="auto", **dataset):
    return Study(
        models={"m": {"id": "some/model", "parameters": size}},
        datasets={"d": {"name": "handwritten", **dataset}},
        extract={"device": device},
    )


def test_a_model_says_how_large_it_is():
    assert parameters(study(70_000_000), "m") == 70_000_000
    assert parameters(study(), "m") == UNKNOWN_SIZE


def test_seven_billion_parameters():
    needs = extract_needs(study(7_000_000_000), "m", "d")
    assert needs.mem_mb > 7e9 * 4 / 2**20  # the weights in float32, at least
    assert needs.threads > 1
    assert needs.gpus == 0
    on_gpu = extract_needs(study(7_000_000_000, device="cuda"), "m", "d")
    assert on_gpu.gpus == 1
    assert on_gpu.minutes < needs.minutes


def test_a_small_model_leaves_cores_to_others():
    assert extract_needs(study(100_000_000), "m", "d").threads == 1


@given(st.integers(10**5, 10**11), st.floats(1, 100))
def test_a_larger_model_never_asks_for_less_memory(size, factor):
    small, large = study(size), study(int(size * factor))
    for estimate in (record_needs, score_needs):
        assert estimate(large, "m").mem_mb >= estimate(small, "m").mem_mb
    assert extract_needs(large, "m", "d").mem_mb >= extract_needs(small, "m", "d").mem_mb
    assert reduce_needs(large, "m", "d").mem_mb >= reduce_needs(small, "m", "d").mem_mb


@given(st.integers(10**5, 10**11), st.integers(1, 10_000), st.integers(1, 10_000))
def test_more_prompts_never_ask_for_less_time(size, prompts, more):
    few, many = study(size, prompts=prompts), study(size, prompts=prompts + more)
    assert extract_needs(many, "m", "d").minutes >= extract_needs(few, "m", "d").minutes
    assert reduce_needs(many, "m", "d").minutes >= reduce_needs(few, "m", "d").minutes


LARGE = {"parameters": 70e9, "blocks": 80, "dimension": 8192}


def hub(facts, **extract):
    return Study(
        models={"m": {"id": "some/model", "init": True, "facts": facts}},
        datasets={"d": {"name": "handwritten", "prompts": 200}},
        extract=extract,
    )


def test_facts_tell_the_size_and_the_model_itself_before_a_table():
    assert parameters(hub({"table": {"parameters": 2e9}}), "m") == 2_000_000_000
    both = {"table": {"parameters": 2e9}, "config": {"parameters": 3_000}}
    assert parameters(hub(both), "m") == 3_000
    assert parameters(hub({"table": {"parameters": None}, "config": None}), "m") == UNKNOWN_SIZE


def test_weights_are_held_in_float32_once():
    held = extract_needs(hub({"config": LARGE}), "m", "d").mem_mb * 2**20
    assert 4 * 70e9 < held < 2 * 4 * 70e9


def test_streamed_weights_are_held_a_block_at_a_time_unless_drawn_anew():
    streamed = hub({"config": LARGE}, stream=True, batch=1)
    block = 4 * 70e9 / 80
    needed = extract_needs(streamed, "m", "d", "main").mem_mb * 2**20
    assert block < needed < 4 * 70e9 / 4
    assert extract_needs(streamed, "m", "d", "init").mem_mb * 2**20 > 4 * 70e9


def test_streaming_costs_the_reading_of_files():
    plain, streamed = (hub({"config": LARGE}, stream=stream, batch=4) for stream in (False, True))
    expected = [extract_needs(s, "m", "d", "main").expected for s in (plain, streamed)]
    assert expected[1] > expected[0]


def test_a_batch_is_made_for_the_memory_of_a_gpu():
    seven = {"parameters": 7e9, "blocks": 32, "dimension": 4096}
    needs = extract_needs(hub({"config": seven}, device="cuda"), "m", "d")
    assert 4 * 7e9 < needs.gpu_mb * 2**20 <= 80e9


def test_disk_holds_every_prompts_products():
    # A of 4 blocks at K = 10 for 200 prompts, in float32.
    facts = {"config": {"parameters": 1e6, "blocks": 4, "dimension": 64}}
    for kept, settings in {
        1: {"swapped": False},
        2: {"swapped": True},
        4: {"swapped": False, "overlaps": True},
    }.items():
        study = hub(facts, k=10, **settings)
        found = extract_needs(study, "m", "d").disk_mb
        assert found == -(-200 * 4 * kept * 40**2 // 2**20)


def test_a_recorded_score_needs_next_to_nothing():
    study = hub({"config": LARGE})
    study.score.heldout = False
    assert score_needs(study, "m").mem_mb < 2000
    study.score.heldout = True
    assert score_needs(study, "m").mem_mb > 4 * 70e9 / 2**20


def test_weights_drawn_anew_are_not_downloaded():
    study = hub({"config": LARGE})
    assert record_needs(study, "m", "main").minutes > record_needs(study, "m", "init").minutes


def test_a_job_may_take_longer_than_expected():
    needs = extract_needs(hub({"config": LARGE}), "m", "d")
    assert needs.minutes >= 3 * needs.expected


@given(st.integers(1, 200), st.floats(1, 3))
def test_a_reduction_of_larger_products_never_asks_for_less_memory(k, factor):
    def needs(k):
        extract = {"k": k, "device": "cpu"}
        model = {"id": "some/model", "init": True, "facts": LARGE}
        study = Study(models={"m": model}, datasets={"d": {"name": "handwritten"}}, extract=extract)
        return reduce_needs(study, "m", "d").mem_mb

    assert needs(k) <= needs(int(k * factor))


def test_an_estimate_is_called_with_what_it_takes_of_a_jobs_wildcards():
    study = hub({"config": LARGE})
    job = {"model": "m", "checkpoint": "main", "dataset": "d"}
    assert needs_of(study, "extract", job) == extract_needs(study, "m", "d", "main")
    assert needs_of(study, "reduce", job) == reduce_needs(study, "m", "d")
    of_checkpoint = {"model": "m", "checkpoint": "init"}
    assert needs_of(study, "weights", of_checkpoint) == record_needs(study, "m", "init")
    assert needs_of(study, "report", {}) == nothing(study)
