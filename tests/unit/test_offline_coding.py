"""The stand-ins for coding: the judge that compares code, the grammar, the pairs of the project. No code is run."""

import ast
import builtins
import json
import re
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations, pairwise
from pathlib import Path
from string import Template
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llamaduo.service_llm.offline.coding import write_pairs
from mlflow_llamaduo.service_llm.offline.coding_judge import READ, by_code
from mlflow_llamaduo.service_llm.offline.llm import judge, teach
from tests.unit.grammars import grammar, unknown_holes

# The judge

TOTAL = "def total(sales, name):\n    return sum(price for item, price in sales if item == name)"
RENAMED = "def total(sales, name):\n    return sum(cost for thing, cost in sales if thing == name)"
LOOP = """\
def total(sales, name):
    result = 0
    for item, price in sales:
        if item == name:
            result += price
    return result"""
OTHER = "def total(sales, name):\n    return name"
PROSE = "To get the total you should go through the sales and add up every price of that name."


def scores(reference: str, response: str) -> tuple[float, float]:
    """Similarity and precision, 0 to 100."""
    found = judge({"task": "coding", "instruction": "q", "reference": reference, "response": response})
    return found["similarity_assessment"]["score"], found["precision_assessment"]["score"]


@pytest.mark.parametrize(
    "response",
    [
        TOTAL,
        f"```python\n{TOTAL}\n```",
        f"\n\n```\n{TOTAL}\n```\n",
        f"```python\n{TOTAL}",
        TOTAL.replace("\n", "\r\n"),
        TOTAL.replace("\n", "  # add them up\n\n\n"),
        f"# the total\n{TOTAL}\n",
        TOTAL.replace("    ", "\t"),
        TOTAL.replace(" == ", "=="),
        f"    {TOTAL}".replace("\n", "\n    "),
    ],
)
def test_fences_comments_blank_lines_and_spacing_cost_nothing(response: str) -> None:
    assert scores(TOTAL, response) == (100, 100)
    assert scores(response, TOTAL) == (100, 100)


def test_quotes_of_either_kind_are_one_and_a_hash_in_a_string_is_no_comment() -> None:
    assert scores('x = "a # b"', "x = 'a # b'  # c") == (100, 100)
    assert scores('x = "a # b"', 'x = "a # c"')[1] < 100
    assert scores('x = """a\n# b"""', 'x = """a\n# c"""')[1] < 100


def test_the_nearer_the_code_the_better_the_scores() -> None:
    found = [scores(TOTAL, response) for response in (TOTAL, RENAMED, LOOP, OTHER, PROSE, "")]

    assert found == sorted(found, reverse=True)
    assert all(better > worse for (_, better), (_, worse) in pairwise(found))
    assert found[-1] == (0, 0)


def test_another_name_costs_little_and_another_algorithm_much() -> None:
    renamed, loop = scores(TOTAL, RENAMED)[1], scores(TOTAL, LOOP)[1]

    assert renamed > 90
    assert loop < 70
    assert scores(TOTAL, RENAMED)[0] < renamed  # the tree has no names


@pytest.mark.parametrize("response", [TOTAL[:-1], f"Here it is:\n{TOTAL}", f"{TOTAL}\n)", TOTAL.replace(":", "", 1)])
def test_what_does_not_parse_loses_more_than_half_of_its_precision_and_none_of_its_similarity(response: str) -> None:
    similarity, precision = scores(TOTAL, response)

    assert similarity > 85
    assert 0 < precision < similarity / 2


@pytest.mark.parametrize(
    "around", ["Sure, here you are:\n{}", "{}\nIt adds up the prices.", "Well:\n{}\nThat is all."]
)
def test_prose_around_a_fenced_block_is_cut_off_and_costs_something(around: str) -> None:
    response = around.format(f"```python\n{TOTAL}\n```")

    assert scores(TOTAL, response) == (85, 85)
    assert scores(response, TOTAL) == (100, 100)  # only the response's prose counts


def test_where_the_reference_is_no_python_nothing_has_to_parse() -> None:
    query = "SELECT name, COUNT(*) FROM loans GROUP BY name;"
    similarity, precision = scores(query, query.replace("name", "title"))

    assert scores(query, query) == (100, 100)
    assert similarity == precision
    assert 70 < similarity < 95


def test_code_beyond_what_is_read_counts_as_no_python() -> None:
    assert "does not parse" in by_code(TOTAL, f"{TOTAL}\n" + "x = 1\n" * READ)[1].why


def test_the_reason_tells_what_was_compared() -> None:
    similarity, precision = by_code(TOTAL, TOTAL)

    assert (similarity.why, precision.why) == ("edit similarity 1.00", "edit similarity 1.00, syntax tree 1.00")


SCRAPS = [
    "def f(x):",
    "\n    ",
    "return",
    " x",
    "'",
    '"',
    "'''",
    "```",
    "\n",
    "#",
    "(",
    "[",
    "{",
    "\\",
    "\0",
    "\t",
    "é",
    "\ud800",
]


@given(*2 * [st.text() | st.lists(st.sampled_from(SCRAPS), max_size=40).map("".join)])
def test_any_texts_get_scores_and_the_same_text_gets_all_of_them_if_it_has_tokens(one: str, other: str) -> None:
    for given_ in (*by_code(one, other), *by_code(other, one)):
        assert 0 <= given_.share <= 1
    assert all(given_.share in (1, 0.4, 0.85) for given_ in by_code(one, one))


HOSTILE = [
    *["(", "[", "{", "-", "not ", "lambda:", "a.", "f(", "1+", "1**", "a if a else ", "f'{", "x[", "@", "*"],
    *[
        "'",
        '"',
        "'''",
        '"""',
        "'\\",
        "```\n",
        "#",
        "\\",
        "\\\n",
        "\0",
        "\n",
        "\t",
        " ",
        "9",
        "elif 1:\n a\n",
        "\ud800",
    ],
    *["if 1:\n ", "a;", "a=", "a,", "{a:", "[a for a in ", "(a:=", "''' \"\"\" "],
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_of_any_size_is_scored(unit: str) -> None:
    for size in (1_000_000, READ, 150):
        text = (unit * (size // len(unit) + 1))[: size - 1] + "1"
        for given_ in (*by_code(TOTAL, text), *by_code(text, text)):
            assert 0 <= given_.share <= 1


def test_code_that_python_would_warn_of_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert by_code(r"re.findall('\d', text)", r"re.findall('\d', text)")[1].why.endswith("syntax tree 1.00")


def test_no_code_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_only_to_a_tree(*args: Any, **more: Any) -> Any:
        assert (args[3] if len(args) > 3 else more["flags"]) & ast.PyCF_ONLY_AST
        return compiled(*args, **more)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("executed")

    compiled = builtins.compile
    monkeypatch.setattr(builtins, "compile", compile_only_to_a_tree)
    monkeypatch.setattr(builtins, "exec", never)
    monkeypatch.setattr(builtins, "eval", never)
    bomb = "raise SystemExit(open('/nowhere', 'w'))"

    assert by_code(bomb, bomb)[1].share == 1


# The teacher

SQL = re.compile(r"(SELECT|UPDATE|DELETE) [^\n]*;")


def code_of(response: str) -> str:
    """The response without its fence, if it has one."""
    if not response.startswith("```"):
        return response
    assert re.fullmatch(r"```(python|sql)\n[^`]+\n```", response), response
    return response.split("\n", 1)[1].rsplit("\n", 1)[0]


def parsed(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ast.parse(code)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@cache
def many() -> tuple[Any, ...]:
    return tuple(pair for seed in range(400) for pair in write_pairs(seed=seed, count=5))


def python() -> Iterator[tuple[Any, str, ast.Module]]:
    """Every pair in Python, with its code and the tree of it."""
    for pair in many():
        code = code_of(pair.response)
        if not SQL.fullmatch(code):
            yield pair, code, parsed(code)


def test_pairs_are_the_same_for_the_same_seed_and_count_and_others_for_others() -> None:
    assert write_pairs(seed=3, count=4) == write_pairs(seed=3, count=4)
    assert len({pair.instruction for seed in range(-20, 20) for pair in write_pairs(seed=seed, count=5)}) == 200


def test_the_teacher_writes_code_for_the_task_coding() -> None:
    asked = {"task": "coding", "example": {"instruction": "q", "response": "a"}, "count": 4, "batch": 1}

    assert teach(asked) == teach(dict(asked))
    assert len(teach(asked)["contents"]) == 4
    assert teach(asked) != teach({**asked, "batch": 2})


def test_every_response_is_a_few_lines_that_parse_as_what_the_prompt_asks_for() -> None:
    for pair in many():
        code = code_of(pair.response)
        assert 1 <= len(code.splitlines()) <= 6
        assert "SQL" in pair.instruction if SQL.fullmatch(code) else "Python" in pair.instruction, pair
    assert sum(1 for _ in python()) > 0.85 * len(many())  # each of them was parsed


def test_the_names_of_functions_and_their_parameters_are_those_of_the_prompt_and_differ() -> None:
    for pair, code, tree in python():
        for given_ in re.findall(r"def \w+\((.*)\)", pair.instruction):
            assert len(set(given_.split(", "))) == len(given_.split(", ")), pair
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            parameters = [argument.arg for argument in function.args.args]
            assert len(parameters) == len(set(parameters)), code  # ast.parse takes them twice
            assert {function.name, *parameters} - {"__init__", "self"} <= words(pair.instruction), pair


def test_names_that_code_reads_are_its_own_python_s_or_the_prompt_s() -> None:
    known = {*dir(builtins), "_"}
    for pair, code, tree in python():
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        assert {name.lower() for name in read - bound - known} <= words(pair.instruction), code


def test_a_fenced_block_comes_just_where_the_prompt_asks_for_one() -> None:
    fenced = [pair.response.startswith("```") for pair in many()]

    assert fenced == ["fenced" in pair.instruction for pair in many()]
    assert 0.02 < sum(fenced) / len(fenced) < 0.12


def test_prompts_are_clean_text_of_20_to_80_words() -> None:
    for pair in many():
        prose = pair.instruction.split("\n\n")[0]
        assert pair.instruction.isascii()
        assert 20 <= len(pair.instruction.split()) <= 80
        assert not re.search(r"[{}|$]|\s[.?] |,,|(?<!\.)\.\.(?!\.)", prose), prose
        assert not re.search(r"\b([a-z]+) \1\b|\ba [aeio]|\ba f-", prose.replace("a one", "")), prose
        assert "$" not in pair.instruction + pair.response


def test_hardly_any_two_of_200_pairs_are_near_copies() -> None:
    sets = [words(pair.instruction) for pair in many()[:200]]
    near = [len(one & other) >= 0.7 * len(one | other) for one, other in combinations(sets, 2)]

    assert sum(near) < 0.01 * len(near)
    assert len({pair.instruction for pair in many()}) == len(many())


# The grammar's data file: every rule that its head comment states


def test_every_domain_names_the_same_things_by_words_that_can_stand_in_code() -> None:
    for domain in grammar("coding")["domains"]:
        names = [domain[key] for key in ("one", "many", "number", "numbers", "text", "flag")]
        assert set(domain) == {"one", "many", "number", "numbers", "text", "flag", "place"}
        assert len(set(names)) == 6
        for name in names:
            assert isinstance(parsed(name).body[0], ast.Expr)  # neither a keyword nor two words
            assert re.fullmatch(r"[a-z_]+", name)
            assert name not in dir(builtins)


def test_every_hole_of_the_prose_is_known() -> None:
    data = grammar("coding")
    known = {*data["words"], *data["domains"][0]}
    shared = [*data["remarks"], *chain(*data["closings"].values(), *data["settings"].values())]

    assert {text: bad for text in shared if (bad := unknown_holes(text, known))} == {}


@pytest.mark.parametrize("name", grammar("coding")["families"])
def test_a_family_uses_what_it_has_and_has_what_it_uses(name: str) -> None:
    data, family = grammar("coding"), grammar("coding")["families"][name]
    slots, domain = family.get("slots", {}), set(data["domains"][0])
    known = domain | set(data["words"])
    for slot, template in slots.items():
        assert slot not in known, slot
        assert unknown_holes(template, known) == [], slot
        known.add(slot)
    for wording in family["ask"]:
        assert unknown_holes(wording, known) == [], wording
    code = set(Template(family["code"] + family.get("given", "")).get_identifiers())

    assert family["shape"] in data["settings"]
    assert len(family["ask"]) >= 2
    assert code <= domain | set(slots)
    assert set(slots) <= code | set(re.findall(r"\{(\w+)\}", " ".join([*family["ask"], *slots.values()])))
    if "given" in family:
        assert family["given"] != family["code"]


# The pairs of the project

COVERAGE = Path(__file__).parents[2] / "projects" / "coding" / "coverage.jsonl"


@cache
def coverage() -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in COVERAGE.read_text(encoding="utf-8").splitlines()]
    assert all(set(row) == {"messages", "category"} and row["category"] == "coding" for row in rows)
    assert all([turn["role"] for turn in row["messages"]] == ["user", "assistant"] for row in rows)
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


def test_the_coverage_pairs_are_120_different_prompts_of_40_to_130_words() -> None:
    prompts = [prompt for prompt, _ in coverage()]

    assert len(prompts) == len(set(prompts)) == len({response for _, response in coverage()}) == 120
    assert all(40 <= len(prompt.split()) <= 130 for prompt in prompts)
    assert all(prompt.isascii() for prompt in prompts)


def test_the_coverage_responses_are_code_of_1_to_6_lines_that_parses() -> None:
    for prompt, response in coverage():
        code = code_of(response)
        assert 1 <= len(code.splitlines()) <= 6, code
        if not SQL.fullmatch(code):
            parsed(code)
        assert ("```" in response) == ("fenced" in prompt), prompt


def test_no_two_coverage_prompts_are_near_copies() -> None:
    sets = [words(prompt) for prompt, _ in coverage()]

    assert not any(len(one & other) >= 0.5 * len(one | other) for one, other in combinations(sets, 2))
