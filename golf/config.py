"""The job file: its sections as frozen dataclasses, read strictly from TOML.

1. `load_job` reads a TOML file, applies `section.key=value` overrides and checks keys and types.
2. A section or key that is left out takes the published record's value (pull request 414 of the
   parameter-golf challenge, with the test-time training of its pull requests 461, 549 and 691).
3. An unknown key is an error that names the nearest right one.

Nothing heavy is imported here: the launcher reads job files on login nodes without torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from golf.sections import (
    ConfigError as ConfigError,  # belongs to the settings for whoever uses them
)
from golf.sections import as_table, build_sections, parse_override, read_sections

NUM_SPANS = 8
"""Spans of tokens in one step, whatever the number of ranks; the number of ranks divides it."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the GPT and the constants of its parts."""

    vocab_size: int = 1024
    num_layers: int = 11
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    mlp_mult: float = 3.0
    """MLP hidden width is `int(mlp_mult * model_dim)`."""
    bigram_vocab_size: int = 2048
    """Rows of the hashed bigram embedding."""
    bigram_dim: int = 128
    xsa_last_n: int = 4
    """Exclusive self-attention on this many last layers."""
    rope_dims: int = 16
    """Leading dimensions of each head that are rotated."""
    rope_base: float = 10000.0
    ve_dim: int = 128
    """Width of the shared value embedding before its projection."""
    ve_layers: tuple[int, ...] = (9, 10)
    """Layers whose values receive the shared value embedding."""
    logit_softcap: float = 30.0
    qk_gain_init: float = 1.5
    tied_embed_init_std: float = 0.005

    def __post_init__(self) -> None:
        for name in ("vocab_size", "num_layers", "model_dim", "num_heads", "num_kv_heads"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1")
        _require(
            self.vocab_size <= 65536, "model.vocab_size must fit uint16 shards (at most 65536)"
        )
        _require(
            self.model_dim % self.num_heads == 0,
            f"model.model_dim={self.model_dim} must be a multiple of "
            f"model.num_heads={self.num_heads}",
        )
        _require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.num_heads={self.num_heads} must be a multiple of "
            f"model.num_kv_heads={self.num_kv_heads}",
        )
        _require(self.mlp_mult > 0, "model.mlp_mult must be positive")
        _require(self.bigram_vocab_size >= 2, "model.bigram_vocab_size must be at least 2")
        _require(
            self.bigram_dim >= 1 and self.ve_dim >= 1, "model.bigram_dim and ve_dim must be >= 1"
        )
        _require(
            4 <= self.rope_dims <= self.head_dim and self.rope_dims % 2 == 0,
            f"model.rope_dims={self.rope_dims} must be even, at least 4 and at most the head width "
            f"{self.head_dim}",
        )
        _require(
            0 <= self.xsa_last_n <= self.num_layers,
            f"model.xsa_last_n must lie between 0 and num_layers={self.num_layers}",
        )
        _require(
            all(0 <= layer < self.num_layers for layer in self.ve_layers)
            and len(set(self.ve_layers)) == len(self.ve_layers),
            f"model.ve_layers={list(self.ve_layers)} must be different layers below "
            f"num_layers={self.num_layers}",
        )

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a training step reads, and where a launch takes its data from."""

    train_batch_tokens: int = 786_432
    """Tokens of one optimizer step over all ranks."""
    train_seq_len: int = 2048
    source: str = "challenge"
    """`challenge`: the published FineWeb shards, named at launch with `--data`. `embedded`: the
    corpus that ships with the package, prepared by the launch itself. Else a folder."""
    val_docs: int = 50
    """Leading documents that `embedded` preparation holds out for validation."""

    def __post_init__(self) -> None:
        _require(self.train_seq_len >= 1, "data.train_seq_len must be at least 1")
        _require(
            self.train_batch_tokens >= 1
            and self.train_batch_tokens % (NUM_SPANS * self.train_seq_len) == 0,
            f"data.train_batch_tokens={self.train_batch_tokens} must be a multiple of "
            f"{NUM_SPANS} x data.train_seq_len={self.train_seq_len} "
            f"(a step is {NUM_SPANS} spans of whole rows)",
        )
        _require(self.val_docs >= 1, "data.val_docs must be at least 1")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Muon for the matrices, AdamW for the embeddings and vectors."""

    matrix_lr: float = 0.025
    scalar_lr: float = 0.025
    tied_embed_lr: float = 0.035
    muon_momentum: float = 0.99
    muon_momentum_warmup_start: float = 0.92
    muon_momentum_warmup_steps: int = 1500
    muon_wd: float = 0.04
    adam_wd: float = 0.04
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    grad_clip_norm: float = 0.3
    """Global gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        for name in ("matrix_lr", "scalar_lr", "tied_embed_lr", "muon_wd", "adam_wd"):
            _require(getattr(self, name) >= 0, f"optim.{name} must not be negative")
        for name in ("muon_momentum", "muon_momentum_warmup_start", "beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optim.{name} must lie in [0, 1)")
        _require(
            self.muon_momentum_warmup_steps >= 0, "optim.muon_momentum_warmup_steps must be >= 0"
        )
        _require(self.adam_eps > 0, "optim.adam_eps must be positive")
        _require(self.grad_clip_norm >= 0, "optim.grad_clip_norm must not be negative")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long training runs and how the learning rate falls."""

    iterations: int = 20_000
    """Steps at most."""
    warmdown_iters: int = 3500
    """Steps over which the learning rate falls linearly to 0 at the end."""
    warmup_steps: int = 20
    """Steps run first to compile and undone afterwards."""
    max_wallclock_seconds: float = 600.0
    """Budget of training steps, without warm-up and validation; 0 means none."""
    late_qat_threshold: float = 0.15
    """Fake quantization starts when the learning-rate scale falls under this; 0 turns it off."""
    val_every: int = 0
    """Steps between validations on the way; 0 validates at the end only."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0 writes one only when asked to stop."""

    def __post_init__(self) -> None:
        _require(self.iterations >= 1, "schedule.iterations must be at least 1")
        for name in ("warmdown_iters", "warmup_steps", "val_every", "checkpoint_every"):
            _require(getattr(self, name) >= 0, f"schedule.{name} must not be negative")
        _require(
            self.max_wallclock_seconds >= 0,
            "schedule.max_wallclock_seconds must not be negative (0 means no wall-clock budget)",
        )
        _require(
            0 <= self.late_qat_threshold <= 1, "schedule.late_qat_threshold must lie in [0, 1]"
        )


@dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """Weight averages kept during training, and which of them is exported."""

    ema_decay: float = 0.997
    swa_every: int = 50
    """Completed steps between SWA snapshots, counted from step 1."""
    swa_start_scale: float = 0.2
    """Snapshots are taken while the learning-rate scale is under this; 0 takes none."""
    export: Literal["ema", "swa", "ema+swa"] = "ema"

    def __post_init__(self) -> None:
        _require(0 <= self.ema_decay < 1, "averaging.ema_decay must lie in [0, 1)")
        _require(self.swa_every >= 1, "averaging.swa_every must be at least 1")
        _require(0 <= self.swa_start_scale <= 1, "averaging.swa_start_scale must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """GPTQ-lite int6, int8 and float16, compressed with zstd."""

    clip_percentiles: tuple[float, ...] = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
    """Candidates of |row| at which int6 clips; the one of least squared error is kept."""
    scale_floor: float = 1.0
    """Multiplies the least step, 1/31 for int6 and 1/127 for int8."""
    zstd_level: int = 22

    def __post_init__(self) -> None:
        _require(
            len(self.clip_percentiles) >= 1 and all(0 < p <= 1 for p in self.clip_percentiles),
            "quantize.clip_percentiles must name at least one percentile in (0, 1]",
        )
        _require(self.scale_floor >= 0, "quantize.scale_floor must not be negative")
        _require(1 <= self.zstd_level <= 22, "quantize.zstd_level must lie between 1 and 22")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Windows in which the validation set is scored."""

    eval_seq_len: int = 2048
    stride: int = 64
    batch_windows: int = 32
    """Windows scored together by one rank."""
    tail: Literal["keep", "cut"] = "keep"
    """`cut` drops the end that fills no whole window of `eval_seq_len`, as the challenge does."""

    def __post_init__(self) -> None:
        _require(self.eval_seq_len >= 1, "evaluate.eval_seq_len must be at least 1")
        _require(
            1 <= self.stride <= self.eval_seq_len,
            f"evaluate.stride={self.stride} must lie between 1 and "
            f"eval_seq_len={self.eval_seq_len}, or tokens would be left out",
        )
        _require(self.batch_windows >= 1, "evaluate.batch_windows must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TTTConfig:
    """Legal score-first test-time training, chunk by chunk."""

    chunk_tokens: int = 32_768
    lr: float = 0.002
    """Peak learning rate of the cosine over chunks."""
    momentum: float = 0.9
    epochs: int = 3
    batch_seqs: int = 32
    """Rows in one SGD step over all ranks."""
    grad_clip: float = 1.0
    freeze_blocks: int = 0
    """Leading blocks that do not adapt."""
    schedule: Literal["strict", "pipelined"] = "strict"
    """`strict` keeps wall-clock order, `pipelined` provenance only. Adapting before scoring is no
    choice: it would score tokens that the weights have already seen."""
    checkpoint_chunks: int = 50
    """Chunks between checkpoints of weights and momentum, from which a resumed run goes on."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; 0 keeps all, for `golf verify --replay` to start from."""

    def __post_init__(self) -> None:
        _require(self.chunk_tokens >= 1, "ttt.chunk_tokens must be at least 1")
        _require(self.lr >= 0, "ttt.lr must not be negative")
        _require(0 <= self.momentum < 1, "ttt.momentum must lie in [0, 1)")
        _require(self.epochs >= 0, "ttt.epochs must not be negative")
        _require(self.batch_seqs >= 1, "ttt.batch_seqs must be at least 1")
        _require(self.grad_clip >= 0, "ttt.grad_clip must not be negative (0 turns it off)")
        _require(self.freeze_blocks >= 0, "ttt.freeze_blocks must not be negative")
        _require(self.checkpoint_chunks >= 1, "ttt.checkpoint_chunks must be at least 1")
        _require(
            self.keep_checkpoints >= 0, "ttt.keep_checkpoints must not be negative (0 keeps all)"
        )


@dataclass(frozen=True, kw_only=True)
class FanoutConfig:
    """`[fanout]`: test-time training over a group of Ray workers instead of torchrun's ranks.

    It changes who computes, not what: no number of a result depends on it but for the number of
    workers, as it would on the number of ranks.
    """

    workers: int = 0
    """Ray workers that share each chunk, one a GPU; 0 evaluates without Ray."""
    nodes: int = 1
    """Nodes over which the workers are spread evenly, of one Slurm job."""
    adapters: int = 0
    """Of the workers of a pipelined schedule, those that adapt; 0 chooses by times measured on
    random tokens at the start. Scores are bit for bit those of as many strict workers."""
    run_ahead: int = 0
    """Chunks that adapters may be ahead of the scores; 0 allows two for each scorer."""
    max_recoveries: int = 8
    """Times that a group which lost a worker is rebuilt before the evaluation gives up."""
    call_timeout_s: float = 1800.0
    """Time for a worker's first call of a kind, which may load or compile, before it counts as
    hung; later calls must end within 20 times the longest before them, or a minute."""

    def __post_init__(self) -> None:
        _require(self.workers >= 0, "fanout.workers must not be negative (0 does without Ray)")
        _require(self.nodes >= 1, "fanout.nodes must be at least 1")
        _require(
            self.nodes == 1 or (self.workers > 0 and self.workers % self.nodes == 0),
            f"fanout.workers={self.workers} cannot be spread evenly over "
            f"fanout.nodes={self.nodes}; set fanout.workers to a multiple of it",
        )
        _require(self.adapters >= 0, "fanout.adapters must not be negative (0 chooses)")
        _require(
            not (self.workers and self.adapters) or self.adapters < self.workers,
            f"fanout.adapters={self.adapters} of fanout.workers={self.workers} leaves nobody to "
            "score; fewer must adapt than there are workers",
        )
        _require(self.run_ahead >= 0, "fanout.run_ahead must not be negative (0 chooses)")
        _require(self.max_recoveries >= 0, "fanout.max_recoveries must not be negative")
        _require(self.call_timeout_s > 0, "fanout.call_timeout_s must be positive")

    @property
    def workers_per_node(self) -> int:
        return self.workers // self.nodes


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Limits that a record must keep."""

    artifact_bytes: int = 16_000_000
    """Compressed model plus code."""
    train_seconds: float = 600.0
    eval_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("artifact_bytes", "train_seconds", "eval_seconds"):
            _require(getattr(self, name) > 0, f"budget.{name} must be positive")


@dataclass(frozen=True, kw_only=True)
class ResourcesConfig:
    """What one stage of one seed needs."""

    nodes: int = 1
    gpus_per_node: int = 8
    """Ranks on a node; 0 runs one rank on the CPU."""
    cpus_per_task: int = 64
    mem_gb: int = 200
    time_minutes: int = 60

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus_per_task", "mem_gb", "time_minutes"):
            _require(getattr(self, name) >= 1, f"resources.{name} must be at least 1")
        _require(
            self.gpus_per_node in (0, 1, 2, 4, 8),
            f"resources.gpus_per_node={self.gpus_per_node} must be 0, 1, 2, 4 or 8 "
            f"(ranks divide the {NUM_SPANS} spans of a step)",
        )


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """The image in which a job's commands run."""

    runtime: Literal["none", "pyxis", "apptainer", "charliecloud", "podman", "docker"] = "none"
    image: str = ""
    mounts: tuple[str, ...] = ()
    """`/host:/inside` pairs."""
    env: dict[str, str] = field(default_factory=dict)
    image_id: str = ""
    """What the image must say of itself in `/opt/golf-launch/image-id`: a stage that finds itself
    in another one ends before any work. Empty: any image of ours will do."""

    def __post_init__(self) -> None:
        _require(
            self.runtime == "none" or bool(self.image),
            f"container.runtime={self.runtime} needs container.image",
        )
        _require(
            not self.image_id or self.runtime != "none",
            "container.image_id needs a container.runtime: outside an image there is none to check",
        )


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """`[job]`: what the experiment is called."""

    name: str = "record"

    def __post_init__(self) -> None:
        _require(
            self.name[:1].isalnum() and all(c.isalnum() or c in "-_." for c in self.name),
            f"job.name={self.name!r} must be letters, digits, '-', '_' and '.', a letter or digit "
            "first",
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A whole job file."""

    job: JobConfig = JobConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    averaging: AveragingConfig = AveragingConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ttt: TTTConfig = TTTConfig()
    fanout: FanoutConfig = FanoutConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    container: ContainerConfig = ContainerConfig()

    def __post_init__(self) -> None:
        _require(
            self.ttt.freeze_blocks <= self.model.num_layers,
            f"ttt.freeze_blocks={self.ttt.freeze_blocks} exceeds model.num_layers="
            f"{self.model.num_layers}",
        )
        _require(
            self.ttt.chunk_tokens >= self.evaluate.eval_seq_len,
            f"ttt.chunk_tokens={self.ttt.chunk_tokens} must hold at least one row of "
            f"evaluate.eval_seq_len={self.evaluate.eval_seq_len}, or nothing would be trained on",
        )

        gpus = self.resources.gpus_per_node
        _require(
            self.fanout.workers_per_node <= gpus or not gpus,
            f"fanout.workers={self.fanout.workers} on fanout.nodes={self.fanout.nodes} needs a GPU "
            f"for each, and resources.gpus_per_node={gpus}; set fanout.workers to at most "
            f"{gpus * self.fanout.nodes}, or more fanout.nodes",
        )

    @property
    def ranks_per_node(self) -> int:
        """Processes that one node runs: one a GPU, or one on the CPU."""
        return max(1, self.resources.gpus_per_node)


def load_job(path: Path | str, overrides: Iterable[str] = ()) -> Job:
    """Read a job file and apply `section.key=value` overrides.

    Raises:
        ConfigError: the file is missing or no TOML, or a key, type or value is wrong.
    """
    path = Path(path)
    return job_from_sections(read_sections(path, "job file"), overrides, where=str(path))


def job_from_sections(
    sections: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "job"
) -> Job:
    """Build a `Job` from nested mappings, as `tomllib` gives them, and overrides on top."""
    merged = {name: as_table(name, table, where) for name, table in sections.items()}
    for override in overrides:
        section, key, value = parse_override(override)
        merged.setdefault(section, {})[key] = value
    return build_sections(Job, merged, where)


def job_to_sections(job: Job) -> dict[str, dict[str, Any]]:
    """The job as nested plain values, every key spelled out; `job_from_sections` reads it back."""
    return {
        section: {
            key: list(value) if isinstance(value, tuple) else value for key, value in table.items()
        }
        for section, table in dataclasses.asdict(job).items()
    }
