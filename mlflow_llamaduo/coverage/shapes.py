"""A row -> a pair, in any of the shapes that people have.

| name in the report | fields |
| --- | --- |
| `messages` | `messages`: turns with `role` and `content` |
| `openai` | the same with `tools`, `functions`, `parallel_tool_calls` or a turn's `weight`: a fine-tuning file |
| `sharegpt` | `conversations`: turns with `from` and `value` (or `role` and `content`) |
| `instruction/input/output` | `instruction`, perhaps `input` or `context`; `output`, `response`, ... |
| `prompt/completion` | `prompt`, `question`, `query`, ...; `completion`, `response`, ...: each text, or turns |
| `litellm` | a call that litellm's proxy logged, see `proxy_logs` |

Where several fit, the first of `litellm`, turns, fields counts. A field that is null is not there. A list may be JSON
text, as in a CSV cell. Beside them a row may have `system` (or `system_prompt`), `history` (earlier questions and
answers), `category`, `source`, and an id: the first of `id`, `uuid`, `request_id`, `trace_id` that is there. (A trace
may hold several calls, so its id comes last.)
"""

from dataclasses import dataclass
from typing import Any

from mlflow_llamaduo.core.records import Pair
from mlflow_llamaduo.coverage import proxy_logs
from mlflow_llamaduo.coverage.rows import Bad, shown
from mlflow_llamaduo.coverage.turns import ROLES, clean, conversation, encodable

LEADS = ("instruction", "prompt", "question", "query", "request")
MORE = ("input", "context")
ANSWERS = ("completion", "response", "output", "answer", "chosen")
SYSTEMS = ("system", "system_prompt")
IDS = ("id", "uuid", "request_id", "trace_id")
OPENAI = frozenset({"tools", "functions", "parallel_tool_calls"})

FIELDS = frozenset(
    {*LEADS, *MORE, *ANSWERS, *SYSTEMS, *IDS, *OPENAI, *proxy_logs.FIELDS}
    | {"messages", "conversations", "history", "category", "source"}
)
"""Every field that is looked at; tables leave the others unread."""

KNOWN = '"messages"; "prompt" and "completion"; "instruction", "input" and "output"; "conversations"; litellm logs'


@dataclass(frozen=True, slots=True)
class Shaped:
    """A row that is a pair: the name of its shape, and the row's own id if it has one."""

    shape: str
    pair: Pair
    id: str | None


def read_row(data: Any) -> Shaped:
    """One row as a pair.

    Args:
        data: what stands in the row, any JSON value.

    Raises:
        Bad: the row is no pair, with the reason.
    """
    if not isinstance(data, dict):
        raise Bad("unknown_shape", f"a row is an object with named fields, not {shown(data)}")
    row = {name: value for name, value in data.items() if value is not None}
    shape, turns = _turns(row)
    prompt, response = conversation(_with_system(row, turns))
    pair = Pair(prompt, response, _label(row, "category") or "", _label(row, "source") or "coverage")
    return Shaped(shape, pair, _id(row))


def _turns(row: dict[str, Any]) -> tuple[str, list[Any]]:
    if proxy_logs.is_log(row):
        return "litellm", proxy_logs.log_turns(row)
    if "messages" in row:
        turns = _list(row, "messages")
        if _asks(turns) and (answer := _first(row, ANSWERS)):
            return "prompt/completion", [*turns, {"role": "assistant", "content": row[answer]}]
        return ("openai" if _for_openai(row, turns) else "messages"), turns
    if "conversations" in row:
        return "sharegpt", _list(row, "conversations")
    return _from_fields(row)


def _list(row: dict[str, Any], name: str) -> list[Any]:
    turns = proxy_logs.from_json(row[name])
    if isinstance(turns, str) and turns.strip():
        raise Bad("not_json", f'"{name}" is a text, and not the JSON of a list')
    if not isinstance(turns, list) or not turns:
        raise Bad("no_prompt", f'no "{name}" list')
    return turns


def _for_openai(row: dict[str, Any], turns: list[Any]) -> bool:
    if not OPENAI.isdisjoint(row):
        return True
    return any(isinstance(turn, dict) and turn.get("weight") is not None for turn in turns)


def _asks(turns: list[Any]) -> bool:
    last = turns[-1]
    return isinstance(last, dict) and last.get("role") == "user"


def _from_fields(row: dict[str, Any]) -> tuple[str, list[Any]]:
    """A prompt in one field or two, an answer in another; each text, or a list of turns."""
    lead, answer = _first(row, LEADS) or _first(row, MORE), _first(row, ANSWERS)
    if lead is None and answer is None:
        names = ", ".join(shown(name) for name in list(row)[:8])
        raise Bad("unknown_shape", f"no known shape in the fields {names or '(none)'}; known: {KNOWN}")
    if answer is None:
        raise Bad("no_answer", f'"{lead}" without an answer: {", ".join(ANSWERS)}')
    shape = "instruction/input/output" if lead == "instruction" else "prompt/completion"
    after = _spoken(row[answer])
    if after and ROLES.get(str(after[0]["role"]).lower()) != "assistant":
        return shape, after  # a whole conversation, prompt included
    if lead is None:
        raise Bad("no_prompt", f'"{answer}" without a prompt: {", ".join(LEADS)}')
    before = _spoken(row[lead]) or [{"role": "user", "content": _asked(row, lead)}]
    return shape, [*_history(row), *before, *(after or [{"role": "assistant", "content": row[answer]}])]


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in row), None)


def _spoken(value: Any) -> list[dict[str, Any]] | None:
    """A field that holds turns instead of text, perhaps as JSON text."""
    turns = proxy_logs.from_json(value) if not isinstance(value, str) or value.startswith("[{") else None
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return turns
    return None


def _asked(row: dict[str, Any], lead: str) -> str:
    """The instruction, a blank line, its input."""
    asked = clean(row[lead], "user")
    for name in MORE:
        more = row.get(name)
        if name != lead and more and not (isinstance(more, str) and not more.strip()):
            asked += f"\n\n{clean(more, 'user')}"
    return asked


def _history(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Earlier rounds, as `[[question, answer], ...]`."""
    rounds = proxy_logs.from_json(row.get("history")) or []
    turns: list[dict[str, Any]] = []
    for spoken in rounds if isinstance(rounds, list) else [rounds]:
        if not isinstance(spoken, list) or len(spoken) != 2:
            raise Bad("unknown_shape", '"history" must be a list of [question, answer]')
        turns += [{"role": "user", "content": spoken[0]}, {"role": "assistant", "content": spoken[1]}]
    return turns


def _with_system(row: dict[str, Any], turns: list[Any]) -> list[Any]:
    name = _first(row, SYSTEMS)
    if name is None or not row[name]:
        return turns
    first = turns[0]
    if isinstance(first, dict) and first.get("role", first.get("from")) == "system":
        return turns
    return [{"role": "system", "content": row[name]}, *turns]


def _label(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Bad("bad_field", '"category" and "source" must be text')
    return encodable(value)


def _id(row: dict[str, Any]) -> str | None:
    """Text or a whole number of at most 128 bits; anything else identifies nothing."""
    for name in IDS:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 128:
            return str(value)
    return None
