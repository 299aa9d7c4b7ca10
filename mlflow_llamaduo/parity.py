"""Show that a packed version, loaded as serving loads it, answers as the model that was trained.

It runs where torch is, in a process of the inference pool; what it finds are values.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mlflow_llamaduo.core.parity import PROBES_FILE, TOKENS, Parity, Probed, compare
from mlflow_llamaduo.core.records import Adapter
from mlflow_llamaduo.errors import DataError, StageError
from mlflow_llamaduo.files import folder_digest, packed, unpacked
from mlflow_llamaduo.pyfunc_model import content_digest, unpack

Chat = Sequence[dict[str, str]]
Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """A packed version that may be registered: its folder, the digest of its content, and what was measured."""

    folder: str
    digest: str
    parity: Parity


def check(folder: Path, adapter: Adapter, chats: Sequence[Chat], run: Run) -> Checked:
    """Load a packed version and hold it against what the worker wrote beside `adapter`.

    Args:
        folder: the packed version; see `pyfunc_model`.
        adapter: what was packed.
        chats: the prompts that the worker asked, `adapter.probed`.
        run: calls a function with arguments where torch may be.

    Raises:
        StageError: it does not answer as it was trained; the message says what differs, a line each.
        BaseModelError: its base is not to be had, or is not the one of the training.
    """
    trained = _trained(adapter, len(chats))
    parity = compare(trained, run(served, packed(folder), chats, trained))
    if parity.differences:
        raise StageError(
            f"the packed model does not answer as it was trained, and is not registered ({folder}):\n"
            + "\n".join(f"  {line}" for line in parity.differences)
        )
    return Checked(str(folder), content_digest(folder), parity)


def served(files: Mapping[str, bytes], chats: Sequence[Chat], trained: Probed) -> Probed:
    """What a packed version says to the prompts, loaded as serving loads it; of the tokens that `trained` chose.

    It gets the version's files, not a path: it may run on another machine than the one that packed them.

    Raises:
        StageError: there is no adapter among them, or none of this base.
        BaseModelError: see `pyfunc_model.unpack`.
    """
    from mlflow_llamaduo.inference.engine import Sampling
    from mlflow_llamaduo.probe import facts, probes, said

    with tempfile.TemporaryDirectory() as scratch:
        folder = unpacked(files, Path(scratch))
        try:
            package, engine = unpack(folder)
        except FileNotFoundError as error:
            raise StageError(f"the packed model has no adapter ({error}): fine-tune anew") from error
        except DataError as error:
            raise StageError(f"the packed model's adapter does not fit ({error}): fine-tune anew") from error
        model = engine.model
        found = facts(
            model,
            engine.tokenizer,
            lora=engine.lora,
            base=package.base_model,
            base_digest=package.base_digest,
            adapter=folder / "adapter",
        )
        prompts, replies = engine.prompt_ids(chats), [probe.reply for probe in trained.probes]
        answered = said(model, prompts, replies, engine.bare)
        rows = engine.generate(chats, Sampling(max_new_tokens=TOKENS))
    answers = [(row[0].text, row[0].finish_reason == "stop") for row in rows]
    first = [np.asarray(probe.first) for probe in trained.probes]
    return Probed(found, probes(prompts, replies, first, answered, answers, answered[0]))


def _trained(adapter: Adapter, count: int) -> Probed:
    folder = Path(adapter.path)
    found = folder_digest(folder) if folder.is_dir() else "nothing"
    if found != adapter.digest:
        raise StageError(
            f"adapter path: {folder} holds {found}, not the adapter {adapter.digest} that was trained: remove the "
            "folder and its .json, and run again"
        )
    file = folder / PROBES_FILE
    probed = TypeAdapter(Probed).validate_python(json.loads(file.read_text())) if file.is_file() else None
    if probed is None or len(probed.probes) != count:
        raise StageError(
            f"{file} does not say how the trained model answers {count} dev prompts: it was trained by another "
            "llamaduo; remove the folder and its .json, and run again"
        )
    return probed
