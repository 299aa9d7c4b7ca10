"""README.md of an exported folder: what the model is, how it was judged, who let it be served, and how to serve it.

Tags, evidence and the base's own files were written by anybody, models among them. Nothing of it comes into the card
but through `said`, which leaves no Markdown, no HTML and no link in it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml

from mlflow_llamaduo.base_models.resolve import CARD, LICENCES
from mlflow_llamaduo.core.catalogue import Pick
from mlflow_llamaduo.core.rules import SCORES, THRESHOLDS
from mlflow_llamaduo.core.terminal import plain
from mlflow_llamaduo.origin import Origin
from mlflow_llamaduo.pyfunc_model import Package
from mlflow_llamaduo.versions import Bounds, Evidence, Seen

LONGEST = 2000
UNSTATED = "not stated in the base's files"


@dataclass(frozen=True, slots=True)
class Card:
    """What the card tells. `merged` is the number format of the merged weights, empty where the adapter is apart."""

    task: str
    pick: Pick
    seen: Seen
    package: Package
    origin: Origin
    licence: str
    port: int
    merged: str = ""


def said(text: str) -> str:
    """A stranger's text as one line of Markdown that reads as it was written, and does nothing."""
    shown = escape(plain(text, LONGEST).strip(), quote=False)
    shown = re.sub(r"([\\`*_\[\]|~#!{}$])", r"\\\1", shown)
    return re.sub(r"(?i)www\.", "www&#46;", shown.replace("://", ":&#47;/")) or "-"


def licence(base: Path) -> str:
    """What a base's own files say of its licence: README.md's front matter, config.json, licence texts."""
    found = [f"{text.name}: {_first_line(text)}" for pattern in LICENCES for text in sorted(base.glob(pattern))]
    for file in (CARD, "config.json"):
        tree = _front_matter(base / file)
        named = [str(tree[key]) for key in ("license", "license_name", "license_link") if tree.get(key)]
        found = [f"{', '.join(named)} ({file})", *found] if named else found
    return "; ".join(found) or UNSTATED


def model_card(card: Card) -> str:
    """The text of README.md."""
    evidence = card.seen.evidence
    lines = [
        f"# {said(card.task)}, version {card.pick.number}",
        "",
        f"A local model for one task, exported from the MLflow model {said(card.pick.name)}. It needs no network.",
        "",
        *_model(card),
        *_serving(card),
        *(_data(card, evidence) if evidence else ["## Evidence", "", f"None: {said(card.seen.note)}", ""]),
        *(_scores(evidence) if evidence else []),
        *_gate(card.seen, evidence),
        *_review(card.seen),
        *_limits(card, evidence),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _model(card: Card) -> Iterator[str]:
    package = card.package
    yield from ("## Model", "")
    yield f"- Base: {said(package.base_model)}, digest {said(package.base_digest)}, in `base/`"
    yield f"- Licence of the base: {said(card.licence)}"
    how = (
        f"merged into the base's weights (computed in float32, kept in {said(card.merged)})"
        if card.merged
        else "LoRA, beside the base"
    )
    yield f"- Adapter: {how}"
    if card.seen.evidence:
        yield f"- Digest of the adapter: {said(card.seen.evidence.lineage.adapter)}"
    yield f"- Made: {said(card.seen.made)}, MLflow run {said(card.seen.run_id)}"
    yield f"- Answers as it was judged: temperature {package.temperature:g}, top_p {package.top_p:g}, at most "
    yield f"  {package.max_new_tokens} tokens"
    yield f"- Parity of what was trained and what is served: {said(card.seen.parity)}"
    yield ""


def _serving(card: Card) -> Iterator[str]:
    task = re.sub(r"[^\w.@-]", "", card.task)  # in a block of code nothing can be escaped
    yield from ("## Serve it", "", "With the Python package mlflow-llamaduo installed, in this folder:", "")
    yield from ("```console", "$ sha256sum -c SHA256SUMS", "$ llamaduo serve --from .")
    yield f"$ curl http://127.0.0.1:{card.port}/v1/chat/completions -H 'content-type: application/json' \\"
    yield f'    -d \'{{"model": "{task}", "messages": [{{"role": "user", "content": "..."}}]}}\''
    yield from ("```", "")
    yield "Beyond this machine it wants API keys (`llamaduo keys add`). Settings are in `serve.yaml`."
    if card.merged:
        yield "`base/` is a whole model in safetensors with tokenizer and chat template: other programs load it too."
    yield ""


def _data(card: Card, evidence: Evidence) -> Iterator[str]:
    lineage, origin = evidence.lineage, card.origin
    yield from ("## Data", "")
    yield f"- Fine-tuned on {lineage.train_rows} rows, digest {said(lineage.train_digest)}; synthetic pairs count"
    yield f"- Source of the pairs: {said(origin.source or 'not known: the run is gone')}"
    if origin.test_rows:
        yield f"- Split before any training: {said(origin.dev_rows)} dev rows, {said(origin.test_rows)} test rows"
    yield f"- Judged on {evidence.card.prompts} test prompts"
    yield f"- Pairs grown by: {said(lineage.generator)}"
    yield ""


def _scores(evidence: Evidence) -> Iterator[str]:
    card, lineage = evidence.card, evidence.lineage
    yield from ("## Scores", "")
    yield f"{card.responses} answers to {card.prompts} prompts, {card.judgings} judgings, {card.unjudged} of them"
    yield f"without scores; 0 to 100. Judge: {said(lineage.judge)}."
    yield f"Families of judge and generator: {said(lineage.families)}"
    yield ""
    if lineage.offline:
        yield "**Judge and generator are offline stand-ins: the scores are no LLM's opinion.**"
        yield ""
    yield from ("| figure | value | 95 % interval |", "| --- | --- | --- |")
    for score in SCORES:
        yield _figure(f"{score}, mean", evidence.scores[score])
        for at in THRESHOLDS:
            share = card.coverage(score, at)
            yield _figure(f"{score}, % of answers with {at:g} or more", Bounds.of(share.value, share.low, share.high))
    yield ""


def _figure(name: str, bounds: Bounds) -> str:
    value = "-" if bounds.value is None else f"{bounds.value:.1f}"
    known = bounds.low is not None and bounds.high is not None
    return f"| {name} | {value} | {f'{bounds.low:.1f} to {bounds.high:.1f}' if known else '-'} |"


def _gate(seen: Seen, evidence: Evidence | None) -> Iterator[str]:
    yield from ("## Gate", "", f"Decision: {said(seen.decision)}", "")
    for passed, rule in evidence.lineage.rules if evidence else ():
        yield f"- {'passed' if passed else 'NOT passed'}: {said(rule)}"
    if seen.override:
        yield f"- **Promoted against its gate**: {said(seen.override)}"
    yield ""


def _review(seen: Seen) -> Iterator[str]:
    yield from ("## Review", "", f"Aliases when it was exported: {said(', '.join(seen.aliases)) or '-'}", "")
    for at, words in seen.words:
        yield f"- {said(at)}: {said(words)}"
    if not seen.words:
        yield "- Nobody has said a word in llamaduo; an alias may have been set in MLflow."
    yield ""


def _limits(card: Card, evidence: Evidence | None) -> Iterator[str]:
    yield from ("## Limits", "")
    yield "- It was made for this one task and judged on prompts like its training pairs; elsewhere nobody knows."
    yield "- It invents, as all language models do. What it says of people or facts is to be checked."
    if evidence:
        few = evidence.card.prompts
        yield f"- {few} test prompts are a sample: the intervals are of these scores by this judge, not of the truth."
    if card.merged and card.merged != "float32":
        yield f"- The merged weights are rounded to {said(card.merged)}; the gate has judged base and adapter apart."
        yield "  Of two tokens that are nearly as likely as each other it may choose the other one."
    yield "- `SHA256SUMS` tells a damaged copy. It is no signature."
    yield ""


def _front_matter(file: Path) -> dict[str, object]:
    """A README's YAML between its first two `---`, or a JSON file's keys (JSON is YAML); nothing if unreadable."""
    try:
        text = file.read_text()
        parts = text.split("\n---", 1) if text.startswith("---\n") else [text if file.suffix == ".json" else ""]
        tree = yaml.safe_load(parts[0])
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _first_line(file: Path) -> str:
    with file.open(errors="replace") as stream:
        return next((line.strip() for line in stream if line.strip()), "(empty)")[:200]
