"""`golf train`: one seed, from initial weights to the exported average.

1. Build model, optimizers and averages; compile them on warm-up steps and undo those.
2. Each step: agree on the clock, look the schedule up, accumulate this rank's micro-batches, reduce
   and clip the gradients, step, average, log.
3. Stop at the last step, at the wall-clock budget, or at a checkpoint when asked to.
4. Export the average that the job names and score it (`sequential`).

A resumed run goes on bit for bit: weights, optimizer, averages, data position, random state and
elapsed time come from the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from golf.checkpoints import Checkpoints
from golf.clock import TrainingClock
from golf.config import NUM_SPANS, ConfigError, Job
from golf.data.loader import StepLoader
from golf.distributed import Ranks
from golf.evaluate.sequential import score_sequential
from golf.evaluate.ttt import Totals
from golf.evaluate.validation import ValidationSet
from golf.metrics import Metrics
from golf.model.attention import choose_backend, rope_tables
from golf.model.flat import FlatParameters
from golf.model.gpt import build_gpt
from golf.model.linear import set_fake_quant
from golf.model.precision import autocast
from golf.optim.averaging import Averages, check_export
from golf.optim.groups import Optimizers
from golf.optim.schedule import Schedule, StepPlan
from golf.records import DataPaths, RunError, TrainPaths, read_json, write_json
from golf.weights import check_weights, save_weights

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StoppedError(RunError):
    """Asked to stop; the run lies in its checkpoint and `--resume` goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How one training run is run."""

    job: Job
    data: DataPaths
    out: Path
    seed: int
    dtype: torch.dtype
    init: dict[str, Tensor] | None = None
    """Starting weights; None draws them from the seed."""
    resume: bool = False
    compiled: bool = False
    attention: str | None = None
    tokenizer: Path | None = None


def train(
    options: TrainOptions, ranks: Ranks, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Train one seed; returns the result.

    Raises:
        ConfigError: settings that cannot be run, or a checkpoint of other settings.
        RunError: data or checkpoint are missing or damaged, or training diverged.
        StoppedError: SIGTERM, SIGUSR1 or SIGUSR2 asked to stop, and a checkpoint is written.
    """
    check_export(options.job)
    paths = TrainPaths(options.out)
    result: dict[str, Any] | None = read_json(paths.result)
    started = paths.metrics.exists()
    ranks.barrier()
    if started and not options.resume:
        raise RunError(
            f"{paths.root} already holds a run; add --resume to go on with it, "
            "or name another --out"
        )
    if result is not None:
        if result.get("config_sha256") != _digest(_settings(options)):
            raise ConfigError(
                f"{paths.root} holds a finished run of another seed or other settings; "
                "train into another --out"
            )
        tell(f"already trained: {paths.result}")
        return result
    run = _Run(options, ranks, tell)
    with _set_on_signal(run.stop_requested):
        run.start()
        try:
            run.steps()
            return run.finish()
        finally:
            run.metrics.release()


@contextmanager
def _set_on_signal(event: threading.Event) -> Iterator[None]:
    """Let SIGTERM, SIGUSR1 and SIGUSR2 ask for a stop; only a process's main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: event.set()) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """One training run under way."""

    def __init__(self, options: TrainOptions, ranks: Ranks, tell: Callable[[str], None]) -> None:
        job = options.job
        self.options, self.job, self.ranks, self.tell = options, job, ranks, tell
        self.paths = TrainPaths(options.out)
        self.validation = ValidationSet.load(options.data, job.model.vocab_size, options.tokenizer)
        self.loader = StepLoader(
            options.data,
            job.data.train_batch_tokens,
            job.data.train_seq_len,
            ranks.rank,
            ranks.world_size,
            job.model.vocab_size,
        )
        torch.manual_seed(options.seed)
        self.backend = choose_backend(ranks.device, options.dtype, options.attention)
        self.gpt = build_gpt(job.model, self.backend, ranks.device, options.dtype)
        if options.init is not None:
            check_weights(options.init, {n: p.shape for n, p in self.gpt.named_parameters()})
            self.gpt.load_state_dict(options.init)
        self.flat = FlatParameters(self.gpt)
        self.optimizers = Optimizers(self.gpt, job.optim)
        self.averages = Averages(self.flat, job.averaging)
        self.schedule = Schedule(job)
        self.rope = rope_tables(job.model, job.data.train_seq_len, ranks.device)
        self.model: nn.Module = torch.compile(self.gpt) if options.compiled else self.gpt  # type: ignore[assignment]
        self.checkpoints = Checkpoints(self.paths.checkpoints, "step")
        self.completed = 0
        self.qat_step: int | None = None
        self.stopped_by = "iterations"
        self.stop_requested = threading.Event()

    # ---- start, checkpoint, resume ----

    def start(self) -> None:
        """Resume from the newest checkpoint or warm up; then the clock starts."""
        checkpoint = self.checkpoints.load_newest() if self.options.resume else None
        elapsed_ms = 0.0
        self._warm_up()
        if checkpoint is not None:
            elapsed_ms = self._restore(checkpoint.tensors, checkpoint.metadata)
            self.tell(f"resuming after step {self.completed}")
        self.metrics = Metrics(self.paths.metrics if self.ranks.is_main else None, self.completed)
        self.clock = TrainingClock(self.ranks.device, elapsed_ms)

    def _warm_up(self) -> None:
        """Run real steps so that everything is compiled, with and without QAT, and undo them."""
        steps = self.job.schedule.warmup_steps
        if steps == 0:
            return
        before = {n: p.detach().clone() for n, p in self.gpt.named_parameters()}
        for step in range(steps):
            late = self.job.schedule.late_qat_threshold > 0 and step >= steps - max(1, steps // 4)
            self._step(step, StepPlan(1.0, self.job.optim.muon_momentum, late and steps > 1))
        self.gpt.load_state_dict(before)
        self.optimizers.load_state({})

    def _save(self) -> None:
        if not self.ranks.is_main:
            return
        self.metrics.flush()
        named = {
            "weights": self.flat.unflatten(self.flat.values),
            "ema": self.flat.unflatten(self.averages.ema),
            "swa": self.flat.unflatten(self.averages.swa_sum),
            "optimizer": self.optimizers.state(),
            "random": {"cpu": torch.get_rng_state()},
        }
        tensors = {f"{kind}.{n}": t for kind, group in named.items() for n, t in group.items()}
        metadata = {
            "completed": self.completed,
            "elapsed_ms": self.clock.elapsed_ms,
            "num_snapshots": self.averages.num_snapshots,
            "qat_step": self.qat_step,
            "settings": _settings(self.options),
            "train_tokens": self.loader.num_tokens,
        }
        self.checkpoints.save(self.completed, tensors, {"state": json.dumps(metadata)})

    def _check_same_run(self, state: dict[str, Any]) -> None:
        if state["train_tokens"] != self.loader.num_tokens:
            raise ConfigError(
                f"{self.paths.checkpoints} was trained on {state['train_tokens']:,} tokens, and "
                f"{self.options.data.root} holds {self.loader.num_tokens:,}; resume with the data "
                "of the start"
            )
        now = _settings(self.options)
        different = [key for key in now if state["settings"].get(key) != now[key]]
        if different:
            raise ConfigError(
                f"{self.paths.checkpoints} was written with other settings of "
                f"{', '.join(different)}; resume with those, or train into another --out"
            )

    def _restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> float:
        state = json.loads(metadata["state"])
        self._check_same_run(state)
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups.setdefault(kind, {})[rest] = tensor
        targets = {
            "weights": self.flat.values,
            "ema": self.averages.ema,
            "swa": self.averages.swa_sum,
        }
        for kind, flat in targets.items():
            for name, view in self.flat.unflatten(flat).items():
                view.copy_(groups[kind][name])
        self.optimizers.load_state(groups["optimizer"])
        torch.set_rng_state(groups["random"]["cpu"])
        self.completed, self.qat_step = state["completed"], state["qat_step"]
        self.averages.num_snapshots = state["num_snapshots"]
        return float(state["elapsed_ms"])

    # ---- the steps ----

    def steps(self) -> None:
        """Train until the schedule, the budget or a signal ends it."""
        for step in range(self.completed, self.job.schedule.iterations):
            # Rank 0's clock counts, and a signal to any rank stops all.
            elapsed_ms, stops = self.ranks.agree(
                self.clock.elapsed_ms if self.ranks.is_main else 0.0,
                float(self.stop_requested.is_set()),
            )
            if self.schedule.budget_ms is not None and elapsed_ms >= self.schedule.budget_ms:
                self.stopped_by = "wallclock"
                break
            if stops:
                self._stop()
            plan = self.schedule.lookup(step, elapsed_ms)
            if plan.fake_quant and self.qat_step is None:
                self.qat_step = step
                self.tell(f"step {step + 1}: quantization-aware training from here on")
            train_loss = self._step(step, plan)
            self.completed = step + 1
            self.averages.update(self.completed, plan.lr_scale)
            self._log(plan, train_loss)
            every = self.job.schedule.checkpoint_every
            if every and self.completed % every == 0:
                with self.clock.paused():
                    self._save()

    def _step(self, step: int, plan: StepPlan) -> Tensor:
        """Forward, backward and update; returns the step's loss over all ranks, 0-dimensional."""
        set_fake_quant(self.gpt, plan.fake_quant)
        self.flat.zero_gradients()
        train_loss = torch.zeros((), device=self.ranks.device)
        for inputs, targets in self.loader.micro_batches(step):
            x, y = (torch.from_numpy(a).to(self.ranks.device) for a in (inputs, targets))
            with autocast(self.ranks.device, self.options.dtype):
                loss = self.model(x, y, self.rope).mean() / NUM_SPANS
            loss.backward()
            train_loss += loss.detach()
        self.ranks.sum(*self.flat.gradients, train_loss)
        self.flat.clip_gradients(self.job.optim.grad_clip_norm)
        self.optimizers.step(plan.lr_scale, plan.muon_momentum)
        return train_loss

    def _log(self, plan: StepPlan, train_loss: Tensor) -> None:
        every, step = self.job.schedule.val_every, self.completed
        line = {
            "step": step,
            "lr_scale": plan.lr_scale,
            "tokens": step * self.job.data.train_batch_tokens,
            "elapsed_ms": self.clock.elapsed_ms,
        }
        if every and step % every == 0 and step < self.job.schedule.iterations:
            with self.clock.paused():
                totals = self._validate()
            line |= {"val_loss": totals.val_loss, "val_bpb": totals.val_bpb}
            self.tell(f"step {step}: val_loss {totals.val_loss:.4f}  val_bpb {totals.val_bpb:.4f}")
        self.metrics.add(line, train_loss)

    def _stop(self) -> None:
        with self.clock.paused():
            self._save()
            self.ranks.barrier()
        self.metrics.close()
        raise StoppedError(f"stopped at a checkpoint after step {self.completed}; --resume goes on")

    # ---- the end ----

    def finish(self) -> dict[str, Any]:
        """Write the averages, score the one that is exported, and write the result."""
        with self.clock.paused():
            train_seconds = self.clock.elapsed_ms / 1000
            self._save()  # should scoring be interrupted, training is not repeated
        self.metrics.close()
        set_fake_quant(self.gpt, False)
        exported = {n: t.clone() for n, t in self.averages.named(self.job.averaging.export).items()}
        self._write_averages(exported)
        self.gpt.load_state_dict(exported)
        totals = self._validate()
        result = self._result(totals, train_seconds)
        if self.ranks.is_main:
            write_json(self.paths.result, result)
        self.ranks.barrier()
        return result

    def _write_averages(self, exported: dict[str, Tensor]) -> None:
        if not self.ranks.is_main:
            return
        save_weights(self.paths.average("ema"), self.averages.named("ema"))
        if self.averages.num_snapshots:
            save_weights(self.paths.average("swa"), self.averages.named("swa"))
        save_weights(self.paths.model, exported)

    def _validate(self) -> Totals:
        set_fake_quant(self.gpt, False)
        self.gpt.eval()
        totals = score_sequential(
            self.gpt, self.validation, self.job, self.ranks, self.options.compiled
        )
        self.gpt.train()
        return totals

    def _result(self, totals: Totals, train_seconds: float) -> dict[str, Any]:
        return {
            "seed": self.options.seed,
            "steps": self.completed,
            "stopped_by": self.stopped_by,
            "train_seconds": train_seconds,
            "train_loss": self.metrics.last.get("train_loss"),
            "tokens": self.completed * self.job.data.train_batch_tokens,
            "export": self.job.averaging.export,
            "val_loss": totals.val_loss,
            "val_bpb": totals.val_bpb,
            "val_tokens": totals.tokens,
            "val_bytes": totals.bytes,
            "qat_step": self.qat_step,
            "swa_snapshots": self.averages.num_snapshots,
            "parameters": sum(p.numel() for p in self.gpt.parameters()),
            "attention": self.backend.name,
            "device": _device_name(self.ranks.device),
            "dtype": str(self.options.dtype).removeprefix("torch."),
            "world_size": self.ranks.world_size,
            "compiled": self.options.compiled,
            "torch": torch.__version__,
            "config_sha256": _digest(_settings(self.options)),
        }


def _settings(options: TrainOptions) -> dict[str, Any]:
    """What a checkpoint and the run that resumes from it must have in common."""
    sections = asdict(options.job)
    kept = ("model", "data", "optim", "schedule", "averaging")
    for key in ("val_every", "checkpoint_every"):  # they change no number
        del sections["schedule"][key]
    own = {"seed": options.seed, "dtype": str(options.dtype)}
    return json.loads(json.dumps({k: sections[k] for k in kept} | own))  # type: ignore[no-any-return]


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
