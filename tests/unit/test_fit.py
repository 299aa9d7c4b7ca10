import time
from pathlib import Path
from typing import Any

import pytest

from mlflow_llamaduo.base_models.shape import find_shape
from mlflow_llamaduo.core.gpus import GPUS
from mlflow_llamaduo.core.records import PairSet
from mlflow_llamaduo.core.rounds import Split
from mlflow_llamaduo.errors import BaseModelError
from mlflow_llamaduo.fit import Fit, fits
from mlflow_llamaduo.fit_table import HEADS, fit_lines
from mlflow_llamaduo.fit_time import TEMPLATE_TOKENS, rows_of
from mlflow_llamaduo.prices import price_book
from tests.unit.builders import pair, pairs, project

LLAMA = "meta-llama/Meta-Llama-3-8B"
PARTS = Split(pairs(40), pairs(2, "dev"), pairs(8, "test"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMADUO_CACHE", str(tmp_path))


def planned(name: str = LLAMA, **sections: Any) -> dict[tuple[str, str], Fit]:
    asked = project(base_model=name, **sections)
    return {(fit.stage, fit.place.name): fit for fit in fits(asked, PARTS, find_shape(name))}


def test_an_8b_model_is_trained_on_an_a100_and_served_on_an_l4() -> None:
    found = planned()

    assert set(found) == {
        ("train", "A100-40G"),
        ("train", "A100-80G"),
        ("answer", "A100-40G"),
        ("serve", "L4"),
    }
    assert all(fit.fits for fit in found.values())
    assert all(fit.remedy == "" for fit in found.values())


def test_a_batch_that_is_too_large_is_told_what_to_do() -> None:
    long = Split(PairSet(tuple(pair("word " * 2000, f"{n}") for n in range(64))), PARTS.dev, PARTS.test)
    asked = project(base_model=LLAMA, finetune={"batch_size": 64, "gradient_accumulation": 1, "max_length": 2048})
    small, large = fits(asked, long, find_shape(LLAMA))[:2]

    assert (small.place.name, small.fits) == ("A100-40G", False)
    size = int(small.remedy.split("finetune.batch_size=")[1].split()[0])
    assert small.remedy.endswith(f"finetune.gradient_accumulation={64 // size}")
    again = project(base_model=LLAMA, finetune={"batch_size": size, "max_length": 2048})
    assert fits(again, long, find_shape(LLAMA))[0].fits
    assert large.memory.total == small.memory.total


def test_a_model_that_no_l4_can_hold_is_served_elsewhere() -> None:
    found = planned("google/gemma-7b", serving={"max_new_tokens": 4096})["serve", "L4"]

    assert not found.fits
    assert found.remedy == "serve on A100-80G"


def test_the_longest_row_for_which_memory_suffices_is_said() -> None:
    found = planned(finetune={"batch_size": 32, "max_length": 8192})["train", "A100-40G"]

    assert found.fits  # the rows that are there are short
    assert found.longest is not None
    assert 200 < found.longest < 8192


def test_on_this_machine_workers_share_the_memory() -> None:
    alone = planned(finetune={"gpus_per_worker": 0})["train", "this machine"]
    shared = planned(finetune={"gpus_per_worker": 0, "workers": 2})["train", "this machine"]

    assert shared.place.there == alone.place.there / 2
    assert alone.usd == 0


def test_more_gpus_are_quicker_and_cost_as_much() -> None:
    one, eight = (planned(finetune={"workers": n})["train", "A100-80G"] for n in (1, 8))

    assert one.minutes is not None
    assert eight.minutes == pytest.approx(one.minutes / 8)
    assert eight.usd == pytest.approx(one.usd)


def test_a_price_of_ones_own_takes_the_place_of_the_typical_one() -> None:
    typical, own = (planned(finetune={"usd_per_hour": usd})["train", "A100-80G"] for usd in (0, 35))

    assert own.usd == pytest.approx(10 * (typical.usd or 0))


def test_every_gpu_of_a_worker_is_paid_for_and_one_computes() -> None:
    one, four = (planned(finetune={"gpus_per_worker": n})["train", "A100-40G"] for n in (1, 4))

    assert four.minutes == one.minutes
    assert four.memory == one.memory
    assert four.usd == pytest.approx(4 * (one.usd or 0))
    own = planned(finetune={"gpus_per_worker": 4, "usd_per_hour": 10})["train", "A100-40G"]
    assert own.usd == pytest.approx(10 * (own.minutes or 0) / 60)  # a worker's price, whatever it holds


def answers(**sections: Any) -> Fit:
    (found,) = [fit for (stage, _), fit in planned(**sections).items() if stage == "answer"]
    return found


def test_vllm_spreads_the_base_over_all_gpus_of_an_actor() -> None:
    one, four = (answers(inference={"engine": "vllm", "gpus": n}) for n in (1, 4))

    assert four.place.name == "4 x A100-40G, vLLM"
    assert four.place.there == pytest.approx(4 * one.place.there)
    assert four.memory.rest > one.memory.rest
    assert (four.minutes or 0) < (one.minutes or 0)
    dearer = 4 * (four.minutes or 0) / (one.minutes or 1)
    assert four.usd == pytest.approx(dearer * (one.usd or 0))


def test_the_other_engine_leaves_all_gpus_but_one_idle_and_a_line_says_so() -> None:
    one, four = (answers(inference={"gpus": n}) for n in (1, 4))

    assert four.minutes == one.minutes
    assert four.usd == pytest.approx(4 * (one.usd or 0))
    lines = list(fit_lines(project(base_model=LLAMA, inference={"gpus": 4, "actors": 2}), PARTS))
    assert "  inference.gpus: the engine transformers answers on one GPU, and pays for 4: " in lines[-1]
    assert "inference.actors=8" in lines[-1]


def test_actors_share_the_answers_and_are_all_paid_for() -> None:
    one, two = (answers(inference={"actors": n}) for n in (1, 2))
    assert two.minutes == pytest.approx((one.minutes or 0) / 2)
    assert two.usd == pytest.approx(one.usd)

    here, shared = (answers(inference={"gpus": 0, "actors": n}) for n in (1, 2))
    assert shared.place.there == here.place.there / 2
    assert shared.minutes == here.minutes  # they share the cores


def test_a_gpu_that_answers_costs_what_one_that_trains_does_if_it_is_of_its_kind() -> None:
    price = {"gpus_per_worker": 2, "usd_per_hour": 20, "accelerator_type": "L4"}
    same = answers(finetune=price, inference={"accelerator_type": "L4"})
    other = answers(finetune=price, inference={"accelerator_type": "H100"})

    assert same.usd == pytest.approx(10 * (same.minutes or 0) / 60)
    assert other.usd == pytest.approx(price_book().gpus["H100"].usd_per_hour * (other.minutes or 0) / 60)


def test_the_examples_of_the_few_shot_baseline_are_read_too() -> None:
    none = answers(baselines={"few_shot": 0})
    three, six = (answers(baselines={"few_shot": n}) for n in (3, 6))
    before, after = (int(fit.at.split(" x ")[1].split()[0]) for fit in (none, three))

    lengths = [len(row.instruction) + len(row.response) for row in PARTS.train]
    assert 3 * (TEMPLATE_TOKENS + min(lengths) // 4) <= after - before
    assert after - before <= 3 * (TEMPLATE_TOKENS + max(lengths) // 4 + 1)
    assert three.memory.cache > none.memory.cache
    assert (none.minutes or 0) < (three.minutes or 0) < (six.minutes or 0)


def test_answers_to_the_dev_prompts_count_from_the_second_round_on() -> None:
    one, two = (answers(limits={"rounds": n}, baselines={"few_shot": 0}).minutes or 0 for n in (1, 2))
    base = one / 2  # the base and the only round

    assert two == pytest.approx(3 * base + base * len(PARTS.dev) / len(PARTS.test), rel=0.35)
    assert two > 3 * base


@pytest.mark.parametrize("name", ["T4", "V100", "L40S", "H100", "H200"])
def test_a_gpu_is_reckoned_by_its_own_figures(name: str) -> None:
    chosen = {"accelerator_type": name}
    found = planned(finetune=chosen, inference=chosen, serving=chosen)

    assert {("train", name), ("answer", name), ("serve", name)} <= set(found)
    assert found["serve", name].place.there == GPUS[name].memory
    assert not any("is not known" in line for line in fit_lines(project(base_model=LLAMA, finetune=chosen), PARTS))


def test_a_gpu_without_bf16_computes_in_float32() -> None:
    old, new = (planned(finetune={"accelerator_type": name})["train", name] for name in ("V100", "L4"))

    assert old.memory.weights > new.memory.weights  # embedding and head; the rest is NF4
    assert old.memory.activations > 1.5 * new.memory.activations
    assert (old.minutes or 0) == pytest.approx((new.minutes or 0) * GPUS["L4"].flops / GPUS["V100"].flops)
    assert planned(inference={"accelerator_type": "T4"})["answer", "T4"].memory.weights == pytest.approx(
        4 * 8.03e9, rel=0.01
    )


def test_a_gpu_that_is_not_known_is_told_with_what_it_was_reckoned_for() -> None:
    chosen = {"accelerator_type": "L40"}
    lines = list(fit_lines(project(base_model=LLAMA, finetune=chosen, inference=chosen, serving=chosen), PARTS))

    told = [line for line in lines if "is not known here" in line]
    assert [line.split(".")[0].strip() for line in told] == ["finetune", "inference", "serving"]
    assert "L40 is not known here; did you mean 'L40S'?: reckoned for A100-40G; known: T4, V100, L4, " in told[0]
    assert "reckoned for L4;" in told[2]


def test_the_recipe_for_many_rows_counts() -> None:
    longer = planned(finetune={"epochs": 10, "from_rows": {20: {"epochs": 20, "lora_rank": 64}}})["train", "A100-80G"]
    shorter = planned(finetune={"epochs": 10})["train", "A100-80G"]

    assert longer.memory.adapter == 2 * shorter.memory.adapter
    assert (longer.minutes or 0) > 2 * (shorter.minutes or 0)


def test_rows_are_four_characters_a_token_and_a_template() -> None:
    rows = rows_of([pair("x" * 400, "y" * 40), pair("x" * 4000, "y" * 40)], most=300)

    assert (rows.longest, rows.mean) == (300, (TEMPLATE_TOKENS + 110 + 300) / 2)
    assert rows.learned == pytest.approx(22 / (TEMPLATE_TOKENS + 410))
    assert rows.batch(4).tokens == 1200  # no batch has more than four of the longest row


def test_the_table_has_every_part_in_gb() -> None:
    head, names, *lines = fit_lines(project(base_model=LLAMA), PARTS)

    assert head == f"does it fit? {LLAMA}: 8.030 billion parameters; GB, estimated"
    assert tuple(names.split()[:9]) == HEADS
    assert [line.split()[0] for line in lines] == ["train:", "train:", "answer:", "serve:"]
    for line in lines:
        *parts, total, _there = map(float, line.split()[2:11])
        assert sum(parts) == pytest.approx(total, abs=0.04)


def test_a_model_that_is_not_known_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise BaseModelError(f"config.json of {name} is not here")

    monkeypatch.setattr("mlflow_llamaduo.fit_table.find_shape", nowhere)

    assert list(fit_lines(project(base_model="some/model"), PARTS)) == [
        "does it fit? not known: config.json of some/model is not here"
    ]


def test_it_is_reckoned_in_no_time() -> None:
    before = time.process_time()
    planned()

    assert time.process_time() - before < 0.5
