"""`llamaduo export` out of a real registry, and the folder served where there is no network at all."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from ray.serve.schema import ServeDeploySchema

from mlflow_llamaduo.base_models.resolve import base_digest
from mlflow_llamaduo.cli import cli
from mlflow_llamaduo.config import Project, load
from mlflow_llamaduo.core.figures import Against
from mlflow_llamaduo.core.records import Message, Pair, PairSet
from mlflow_llamaduo.inference.engine import Sampling
from mlflow_llamaduo.inference.transformers_engine import TransformersEngine
from mlflow_llamaduo.promotion import Promotions, Word
from mlflow_llamaduo.pyfunc_model import content_digest, pack, package, read_package
from mlflow_llamaduo.registry import Registry
from tests.integration import tiny
from tests.integration.served import BIN, ROOT, ask, environment
from tests.requirements import required
from tests.unit.builders import adapter, checked, decision, scores
from tools.servers import free_port, started

NAME = "llamaduo-closed_qa"
TRAIN = PairSet((Pair((Message("user", "q"),), "a"),))
HOSTILE = (
    "ok <script>alert(1)</script> | ![x](http://evil.example/a) `rm` [l](javascript:x)\n# Head\x1b[2J"
    " www.evil.example"
)
CHAT = [[{"role": "user", "content": "Who built the mill?"}], [{"role": "user", "content": "When?"}]]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMADUO_PROJECTS", str(ROOT / "projects"))
    monkeypatch.setenv("LLAMADUO_CACHE", str(tmp_path / "cache"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("test")
    return load("closed_qa")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base that says what its licence is, and has a pickle that nobody asked for."""
    folder = tiny.base(tmp_path / "tiny-base")
    (folder / "LICENSE").write_text("\n  Tiny Licence 1.0 <b>\nmore\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def publish(project: Project, base: Path) -> Callable[..., int]:
    """Register a version with evidence; the first call promotes it."""

    def made(seed: int = 1, *, passed: bool = True, **config: object) -> int:
        folder = Path(f"adapter-{seed}")
        tiny.adapted(base, seed).save_pretrained(str(folder), safe_serialization=True)
        tiny.tokenizer().save_pretrained(str(folder))
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        trained = adapter(f"a{seed}", path=str(folder), base_model=str(base), base_digest=base_digest(base))
        sized = project.model_copy(update={"inference": project.inference.model_copy(update={"max_new_tokens": 8})})
        packed = Path(f"packed-{seed}")
        pack(packed, adapter=folder, package=package(sized, trained))
        with mlflow.start_run() as parent:
            mlflow.log_params(
                {"coverage.source": "pairs<b>.jsonl", "coverage.dev_rows": 12, "coverage.test_rows": 24}
            )
            with mlflow.start_run(nested=True) as run:
                version = Registry(project, f"one-{seed}").register(
                    trained,
                    scores({"p0": [60.0, 70.0], "p1": [80.0, 20.0]}),
                    decision(passed=passed),
                    checked=checked(content_digest(packed), str(packed)),
                    against=Against({}),
                    train=TRAIN,
                    run_id=run.info.run_id,
                )
        assert parent.info.run_id
        if passed:
            Promotions(NAME).promote(version.number, Word("ann", HOSTILE))
        return version.number

    return made


def llamaduo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def exported(to: Path, *arguments: str) -> Path:
    result = llamaduo("export", "--to", str(to), *arguments)
    assert result.exit_code == 0, result.output
    return to


def refused(*arguments: str, code: int = 2) -> str:
    """The one line of a command that did not go well."""
    result = llamaduo(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


def version_in(folder: Path) -> Path:
    (found,) = (folder / NAME).glob("*-*")
    return found


def test_a_folder_has_all_that_is_served_and_sha256sum_agrees(
    publish: Callable[..., int], base: Path, tmp_path: Path
) -> None:
    publish()
    old = publish(2, passed=False)
    folder = exported(tmp_path / "out")
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {"SHA256SUMS"}
    assert {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()} == files
    assert {"serve.yaml", "README.md", "base/LICENSE", "base/model.safetensors", f"{NAME}/model.json"} <= files
    assert "base/pytorch_model.bin" not in files
    assert not any(file.is_symlink() for file in folder.rglob("*"))
    assert json.loads((folder / NAME / "model.json").read_text())["aliases"] == {"champion": 1}
    assert read_package(version_in(folder)).merged is False
    assert (version_in(folder) / "adapter/chat_template.jinja").is_file()
    other = exported(tmp_path / "other", "--version", str(old))
    assert json.loads((other / NAME / "model.json").read_text())["aliases"] == {"champion": old}
    assert "not passed" in (other / "README.md").read_text()
    assert not list(tmp_path.glob(".*.part"))


def test_serve_yaml_is_ray_serves_and_names_no_keys(publish: Callable[..., int], tmp_path: Path) -> None:
    publish()
    text = (exported(tmp_path / "out") / "serve.yaml").read_text()
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    assert application.import_path == "mlflow_llamaduo.serving.exported:app"
    assert application.args["task"] == "closed_qa"
    assert not {"keys", "canary", "shadow", "fallback"} & set(application.args["serving"])


def test_the_card_says_what_it_is_and_a_strangers_words_do_nothing(
    publish: Callable[..., int], tmp_path: Path
) -> None:
    publish()
    card = (exported(tmp_path / "out") / "README.md").read_text()
    for wanted in (
        "# closed\\_qa, version 1",
        "apache-2.0 (README.md); LICENSE: Tiny Licence 1.0 &lt;b&gt;",
        "Fine-tuned on 1 rows, digest " + TRAIN.digest,
        "pairs&lt;b&gt;.jsonl",
        "12 dev rows, 24 test rows",
        "| precision, mean | 57.5 | ",
        "offline stand-ins: the scores are no LLM's opinion",
        "Decision: passed",
        "by ann: ok &lt;script&gt;alert(1)&lt;/script&gt; \\|",
        '"model": "closed_qa"',
    ):
        assert wanted in card, wanted
    prose = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    for unwanted in ("<", "](", "://", "www.", "\x1b", "\n# Head"):
        assert unwanted not in prose.replace("\\](", ""), unwanted


def test_a_base_that_says_nothing_of_its_licence(publish: Callable[..., int], base: Path, tmp_path: Path) -> None:
    for file in ("LICENSE", "README.md"):
        (base / file).unlink()
    publish()
    assert (
        "Licence of the base: not stated in the base's files"
        in (exported(tmp_path / "out") / "README.md").read_text()
    )


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_says_what_base_and_adapter_say(
    publish: Callable[..., int], base: Path, tmp_path: Path, rslora: bool
) -> None:
    publish(use_rslora=rslora)
    plain = exported(tmp_path / "plain")
    merged = exported(tmp_path / "merged", "--merged")
    adapter_folder = version_in(merged) / "adapter"
    assert not list(merged.rglob("adapter_model.safetensors")) and not list(merged.rglob("adapter_config.json"))
    found = read_package(version_in(merged))
    assert found.merged and found.base_digest == base_digest(merged / "base") != base_digest(base)
    sampling = Sampling(max_new_tokens=24, temperature=0.0, top_p=1.0, seed=None)
    apart = TransformersEngine(str(plain / "base"), str(version_in(plain) / "adapter")).generate(CHAT, sampling)
    whole = TransformersEngine(str(merged / "base")).generate(CHAT, sampling)  # with the tokenizer in base/
    bare = TransformersEngine(str(plain / "base")).generate(CHAT, sampling)
    assert whole == apart != bare
    assert (adapter_folder / "tokenizer.json").is_file()


def test_merged_weights_keep_the_bases_number_format_and_are_rounded_once(
    publish: Callable[..., int], base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16).save_pretrained(str(base))
    publish()
    merged = exported(tmp_path / "merged", "--merged")
    weights = load_file(merged / "base/model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    whole = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(whole, "adapter-1").merge_and_unload().state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, theirs[name].to(torch.bfloat16), rtol=0.008, atol=0)
    assert "rounded to bfloat16" in (merged / "README.md").read_text()


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    publish: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert "has no version yet" in refused("export", "--to", str(out))
    publish(1, passed=False)
    assert "has no champion" in refused("export", "--to", str(out))
    assert "no version 9" in refused("export", "--to", str(out), "--version", "9")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    assert "is not empty" in refused("export", "--to", str(tmp_path / "full"), "--version", "1")
    assert (tmp_path / "full/mine").read_text() == "x"
    assert "is no folder" in refused("export", "--to", str(tmp_path / "full/mine"), "--version", "1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
    line = refused("export", "--to", str(out), "--version", "1")
    assert re.search(r"needs [0-9,]{7,} bytes, and 7 are free", line)
    assert not out.exists() and not list(tmp_path.glob(".*.part"))


def test_an_adapter_that_is_more_than_lora_is_not_merged(publish: Callable[..., int], tmp_path: Path) -> None:
    publish()
    exported(tmp_path / "plain")
    (config,) = Path("cache").rglob("adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    assert "only plain LoRA" in refused("export", "--to", str(tmp_path / "out"), "--merged")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_what_was_exported_is_not_served(publish: Callable[..., int], tmp_path: Path) -> None:
    publish()
    whole = exported(tmp_path / "whole")

    def after(change: Callable[[Path], object]) -> str:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        copy = Path(shutil.copytree(whole, tmp_path / "copy"))
        change(copy)
        return refused("serve", "--from", str(copy), "--port", str(free_port()))

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    assert "base/model.safetensors is not the file that was exported" in after(
        lambda f: flip(f / "base/model.safetensors")
    )
    assert "base/config.json is missing" in after(lambda f: (f / "base/config.json").unlink())
    assert "base/more.json is not in SHA256SUMS" in after(lambda f: (f / "base/more.json").write_text("{}"))
    assert "SHA256SUMS cannot be read" in after(lambda f: (f / "SHA256SUMS").unlink())
    assert "serve.yaml cannot be read" in after(lambda f: (f / "serve.yaml").write_text("- a"))
    gone = after(lambda f: (f / "serve.yaml").unlink())
    assert "serve.yaml cannot be read: No such file or directory: llamaduo export" in gone
    assert "SHA256SUMS: line 1 is not" in after(lambda f: (f / "SHA256SUMS").write_text("../x"))


def test_only_settings_of_serving_go_with_from(publish: Callable[..., int], tmp_path: Path) -> None:
    publish()
    folder = str(exported(tmp_path / "out"))
    assert "--task does not go with --from" in refused("serve", "--from", folder, "--task", "coding")
    assert "limits.rounds" in refused("serve", "--from", folder, "--set", "limits.rounds=2")
    assert "serving.gpu:" in refused("serve", "--from", folder, "--set", "serving.gpu=1")
    assert "no API keys" in refused("serve", "--from", folder, "--set", "serving.host=0.0.0.0")


def test_ray_serve_itself_takes_the_folder_and_what_an_operator_has_changed(
    publish: Callable[..., int], tmp_path: Path
) -> None:
    publish()
    folder, port = exported(tmp_path / "out"), free_port()
    file = folder / "serve.yaml"
    file.write_text(file.read_text().replace("port: 8000", f"port: {port}"))
    url, kept = f"http://127.0.0.1:{port}", environment(tmp_path)
    with started([str(BIN / "serve"), "run", "serve.yaml"], folder, kept, f"{url}/healthz"):
        answer = ask(url, "closed_qa", max_tokens=8)
        assert (answer.status, answer.version) == (200, 1), answer


CLIENT = """
import json, subprocess, sys, time, urllib.request, urllib.error, signal
serve, port, log = sys.argv[4:], sys.argv[1], open(sys.argv[2], "wb")
url = f"http://127.0.0.1:{port}"
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
server = subprocess.Popen(serve, stdout=log, stderr=log)
try:
    until = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=2).read()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                sys.exit("the service did not come up")
            time.sleep(0.3)
    body = {"model": "closed_qa", "messages": [{"role": "user", "content": "Who built the mill?"}], "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as found:
        answer = json.load(found)["choices"][0]["message"]["content"]
        version = found.headers["x-llamaduo-version"]
    models = [row["id"] for row in json.load(urllib.request.urlopen(f"{url}/v1/models", timeout=9))["data"]]
    with open(sys.argv[3], "w") as out:
        json.dump({"answer": answer, "version": version, "models": models, "interfaces": interfaces}, out)
finally:
    server.send_signal(signal.SIGINT)
    try:
        code = server.wait(60)
    except subprocess.TimeoutExpired:
        server.kill()
        raise
sys.exit(code)
"""


def namespace() -> None:
    """Skip where this user may not make a network namespace; where it is required, fail."""
    try:
        done = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
        why = done.stderr.decode().strip() if done.returncode else ""
    except FileNotFoundError as error:
        why = str(error)
    if why:
        assert "netns" not in required(), why
        pytest.skip(f"no network namespace: {why}")


@pytest.mark.parametrize("how", ["adapter", "merged"])
def test_it_is_served_where_there_is_nothing_but_loopback(
    publish: Callable[..., int], base: Path, tmp_path: Path, how: str
) -> None:
    namespace()
    publish()
    made = exported(tmp_path / "out", *(["--merged"] if how == "merged" else []))
    sampling = Sampling(max_new_tokens=512, temperature=0.0, top_p=1.0, seed=None)
    sampling = replace(sampling, max_new_tokens=load("closed_qa").serving.max_new_tokens)
    room = 256
    engine = TransformersEngine(str(base), "adapter-1")
    (ids,) = engine.prompt_ids(CHAT[:1])
    most = min(sampling.max_new_tokens, room - len(ids), 32)
    ((expected,),) = engine.generate(CHAT[:1], replace(sampling, max_new_tokens=most))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "home").mkdir(parents=True)
    folder = Path(shutil.move(made, elsewhere / "copy"))
    for gone in (base, tmp_path / "cache"):
        shutil.rmtree(gone)
    for file in (*folder.rglob("*"), folder):  # a medium that nobody writes to
        file.chmod(0o555 if file.is_dir() else 0o444)
    script, out, log = (elsewhere / name for name in ("client.py", "out.json", "server.log"))
    script.write_text(CLIENT)
    kept = environment(elsewhere, HOME=str(elsewhere / "home"), HF_HUB_OFFLINE="1")
    variables = {k: v for k, v in kept.items() if k not in ("LLAMADUO_PROJECTS", "LLAMADUO_CACHE")}
    port = str(free_port())
    serve = [str(BIN / "llamaduo"), "serve", "--from", str(folder), "--port", port]
    serve += ["--set", f"serving.max_new_tokens={most}"]
    command = [sys.executable, str(script), port, str(log), str(out), *serve]
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    done = subprocess.run(
        inside, cwd=elsewhere / "home", env=variables, capture_output=True, text=True, timeout=400, check=False
    )
    said = log.read_text() if log.is_file() else ""
    for file in (folder, *(file for file in folder.rglob("*") if file.is_dir())):
        file.chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr + said[-3000:]
    found = json.loads(out.read_text())
    assert found["interfaces"] == ["lo"]
    assert found["answer"] == expected.text
    assert found["version"] == "1" and found["models"] == ["closed_qa", "closed_qa@1"]
    assert "Traceback" not in said
    assert not list((elsewhere / "home").glob("mlruns")) and not list((elsewhere / "home").glob("*.db"))
