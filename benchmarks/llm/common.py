"""Sizes, and what the parts have in common."""

import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks import peers
from benchmarks.row import table_line
from mlflow_llamaduo.config import ServiceModel
from mlflow_llamaduo.service_llm.client import Budget, Purpose, Reply, ReplyStore, Request, ServiceLLM

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rate_s: int
    """Calls of the rate part, in seconds at the allowed rate."""
    faulty: int
    hang_s: float
    blocks: int
    block: int
    bare_http: int
    stream: int
    entries: tuple[int, ...]
    hits: int
    budgets: int
    served_budgets: int


FULL = Sizes(60, 2_000, 60.0, 20, 1_000, 4_000, 20_000, (10_000, 1_000_000), 50_000, 200, 20)
QUICK = Sizes(5, 300, 8.0, 6, 300, 800, 2_000, (10_000, 50_000), 10_000, 40, 4)
RATES = (600, 6_000)
LATENCY_S = (0.3, 3.0)
PLACES_S = 4.0
"""Concurrency of ours in the rate part, in seconds of calls at the allowed rate: more than the longest latency."""
STEADY = (0.2, 0.8)
"""From the second in which so much of the replies was in to the second with so much: neither start nor end."""
FAULTS = {"fault_429": 0.05, "fault_500": 0.03, "fault_drop": 0.02, "fault_half": 0.02, "fault_hang": 0.01}
TIMEOUT_S = 5.0
"""Of ours in the faults part: shorter than a hang. LiteLLM waits for the server to close the connection."""
CONCURRENCY = 64
MAX_TOKENS = 100
FIRST = 1_000
"""Requests after which the memory of a stream is taken first; its growth is from there."""
WARM = 200
TEXT = "x" * 500
FILE = "replies.sqlite"
NOBODY = "http://127.0.0.1:9/v1"
"""Where no server is: for what must not, or does not, call one."""


class WrongResultError(RuntimeError):
    """The client did something wrong; no figure is worth anything then."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How a contender got through a limited server, in per cent; `by_second` and `whole` of the allowed rate.

    `by_second` has the seconds of the steady state; `refused` is a share of the `calls`, `lost` of the `requests`.
    """

    by_second: tuple[float, ...]
    whole: float
    refused: float
    calls: int
    lost: float
    requests: int
    seconds: float

    @property
    def steady(self) -> float:
        """The mean second of the steady state."""
        return fmean(self.by_second)


@contextmanager
def client(url: str, *, cap_usd: float = 1_000.0, file: Path | None = None, **options: Any) -> Iterator[ServiceLLM]:
    """A client with a new store on disk and a price, so that dollars are set aside for every call."""
    model = {"model": peers.MODEL, "api_base": url, "concurrency": CONCURRENCY, "max_tokens": MAX_TOKENS}
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
    with TemporaryDirectory() as folder, closing(ReplyStore(file or Path(folder) / FILE)) as replies:
        llm = ServiceModel.model_validate({**model, **prices, **options})
        yield ServiceLLM(llm, store=replies, budget=Budget(cap_usd), purpose=Purpose("run", "bench"))


def asked(llm: ServiceLLM, first: int, n: int) -> peers.Outcome:
    """Ask n requests; all of them must be answered."""
    began = time.perf_counter()
    answered = sum(
        isinstance(answer, Reply) for _, answer in llm.complete_many(map(request, range(first, first + n)))
    )
    outcome = peers.Outcome(answered, n - answered, time.perf_counter() - began)
    must(not outcome.lost, f"{outcome.lost} of {n} requests were lost")
    return outcome


def request(i: int) -> Request:
    return Request(tuple(messages(i)))


def messages(i: int) -> list[dict[str, str]]:
    """A prompt as the stages write them: what to do, and a text of some length."""
    return [{"role": "system", "content": "s" * 600}, {"role": "user", "content": f"question {i} {'x' * 800}"}]


def fresh(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of this module returns in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=allow_sockets) as process:
        return process.submit(function, *arguments).result()


def allow_sockets() -> None:
    """As many as there may be: gather opens one for every request at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def must(right: bool, wrong: str) -> None:
    if not right:
        raise WrongResultError(wrong)


def tell(*cells: str) -> None:
    print(table_line(*cells), flush=True)


def asked_by_gather(url: str, requests: int, _: int = 0) -> peers.Outcome:
    """`peers.gather` in the form of the other contenders: it has no use for a rate."""
    return peers.gather(url, requests)
