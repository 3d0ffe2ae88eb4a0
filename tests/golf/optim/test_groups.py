from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golf.config import Job, ModelConfig, OptimConfig
from golf.model.attention import choose_backend
from golf.model.flat import FlatParameters
from golf.model.gpt import GPT, build_gpt
from golf.optim.groups import EMBEDDINGS, Optimizers, is_matrix

CPU = torch.device("cpu")
NEVER_MUON = ("resid_mix", "skip_weights", "scale", "gain", "gate")


def test_muon_moves_the_68_matrices_of_the_record_s_model_and_nothing_else() -> None:
    with torch.device("meta"):
        gpt = GPT(ModelConfig(), choose_backend(CPU, torch.float32))
    names = {name for name, _ in gpt.named_parameters()}
    matrices = {name for name in names if is_matrix(name)}
    parts = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.proj", "mlp.fc", "mlp.proj")
    blocks = {f"blocks.{i}.{part}.weight" for i in range(11) for part in parts}
    assert matrices == blocks | {"bigram.proj.weight", "ve_shared.proj.weight"}
    assert set(EMBEDDINGS) <= names - matrices
    rest = names - matrices - set(EMBEDDINGS)
    assert all(any(word in name for word in NEVER_MUON) for name in rest)
    assert {"skip_weights", "blocks.0.resid_mix"} <= rest


def make(tiny_job: Job, optim: OptimConfig | None = None) -> tuple[GPT, Optimizers]:
    torch.manual_seed(0)
    backend = choose_backend(CPU, torch.float32)
    gpt = build_gpt(tiny_job.model, backend, CPU, torch.float32)
    FlatParameters(gpt)
    return gpt, Optimizers(gpt, optim or tiny_job.optim)


def give_gradients(gpt: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in gpt.parameters():
        assert parameter.grad is not None
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))


def copies(gpt: GPT) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in gpt.named_parameters()}


def test_each_group_steps_at_its_own_rate_times_the_scale(tiny_job: Job) -> None:
    """AdamW's first step without decay is the rate itself, in the direction of the gradient."""
    rates = OptimConfig(matrix_lr=0.0, scalar_lr=0.01, tied_embed_lr=0.03, muon_wd=0.0, adam_wd=0.0)
    gpt, optimizers = make(tiny_job, rates)
    before = copies(gpt)
    give_gradients(gpt, 1)
    optimizers.step(0.5, 0.9)
    for name, parameter in gpt.named_parameters():
        moved = (parameter.detach() - before[name]).abs()
        rate = 0.0 if is_matrix(name) else 0.03 if name in EMBEDDINGS else 0.01
        torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * rate), rtol=1e-2, atol=1e-7)


def test_a_scale_of_zero_moves_nothing(tiny_job: Job) -> None:
    gpt, optimizers = make(tiny_job)
    before = copies(gpt)
    give_gradients(gpt, 1)
    optimizers.step(0.0, 0.9)
    assert all(torch.equal(p, before[n]) for n, p in gpt.named_parameters())


def test_adamw_decays_what_it_moves_and_muon_what_it_moves(tiny_job: Job) -> None:
    """With gradients of zero only the decoupled decay is left."""
    gpt, optimizers = make(tiny_job, OptimConfig(adam_wd=0.5, muon_wd=0.25))
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.fill_(1.0)
    optimizers.step(1.0, 0.9)
    for name, parameter in gpt.named_parameters():
        decay = (
            0.025 * 0.25
            if is_matrix(name)
            else (0.035 if name in EMBEDDINGS else 0.025) * 0.5
        )  # fmt: skip
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 1 - decay))


def test_restored_state_goes_on_bit_for_bit(tiny_job: Job) -> None:
    gpt, optimizers = make(tiny_job)
    for seed in (1, 2):
        give_gradients(gpt, seed)
        optimizers.step(1.0, 0.9)
    weights, state = copies(gpt), {n: t.clone() for n, t in optimizers.state().items()}
    assert {n.split(".")[0] for n in state} == {"muon", "adamw"}
    other, restored = make(tiny_job)
    other.load_state_dict(weights)
    restored.load_state(state)
    for model, both in ((gpt, optimizers), (other, restored)):
        for seed in (3, 4):
            give_gradients(model, seed)
            both.step(0.7, 0.95)
    assert all(torch.equal(p, copies(other)[n]) for n, p in gpt.named_parameters())
    assert all(torch.equal(t, restored.state()[n]) for n, t in optimizers.state().items())


def test_empty_state_is_a_fresh_start(tiny_job: Job) -> None:
    gpt, optimizers = make(tiny_job)
    start = copies(gpt)

    def two_steps() -> dict[str, Tensor]:
        for seed in (1, 2):
            give_gradients(gpt, seed)
            optimizers.step(1.0, 0.9)
        return copies(gpt)

    first = two_steps()
    gpt.load_state_dict(start)
    optimizers.load_state({})
    assert all(torch.equal(t, first[n]) for n, t in two_steps().items())


@pytest.mark.parametrize("name", ["resid_mix", "skip_weights"])
def test_two_dimensional_vectors_have_adamw_state(name: str, tiny_job: Job) -> None:
    gpt, optimizers = make(tiny_job)
    give_gradients(gpt, 1)
    optimizers.step(1.0, 0.9)
    mine = {key for key in optimizers.state() if key.endswith(name)}
    assert mine
    assert all(key.startswith("adamw.") for key in mine)
