from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_gpt import CPU, SMALL, Golden, fresh_gpt, live_gpt, random_ids
from torch import Tensor, nn

from golf.config import ModelConfig
from golf.model.attention import choose_backend, rope_tables
from golf.model.gpt import GPT
from golf.model.linear import set_fake_quant
from golf.model.precision import autocast


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


# ---- the public implementation's numbers ----


def test_logits_and_loss_are_the_public_implementation_s(golden_gpt: GPT, golden: Golden) -> None:
    data = golden("small_forward")
    rope = rope_tables(golden_gpt.config, data["x"].size(1))
    logits = golden_gpt.logits(data["x"], rope)
    largest = data["logits"].abs().max()
    assert (logits - data["logits"]).abs().max() <= 1e-5 * largest
    loss = golden_gpt(data["x"], data["y"], rope).mean()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)


@pytest.mark.parametrize(("name", "fake_quant"), [("small_forward", False), ("small_qat", True)])
def test_the_gradient_of_every_weight_is_the_public_implementation_s(
    name: str, fake_quant: bool, golden_gpt: GPT, golden: Golden
) -> None:
    batch, data = golden("small_forward"), golden(name)
    set_fake_quant(golden_gpt, fake_quant)
    loss = golden_gpt(batch["x"], batch["y"], rope_tables(golden_gpt.config, 96)).mean()
    loss.backward()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)
    wanted = {k.removeprefix("g/"): v for k, v in data.items() if k.startswith("g/")}
    got = {n: p.grad for n, p in golden_gpt.named_parameters() if p.grad is not None}
    assert set(got) == set(wanted) == {n for n, _ in golden_gpt.named_parameters()}
    far = {n: relative(got[n], wanted[n]) for n in wanted if relative(got[n], wanted[n]) > 2e-5}
    assert not far


def test_fake_quantization_is_seen_in_the_golden_loss(golden: Golden) -> None:
    """Else the comparison above would prove nothing of it."""
    plain, quantized = (golden(name)["loss"].item() for name in ("small_forward", "small_qat"))
    assert abs(plain - quantized) > 1e-3


def test_long_sequences_are_rotated_as_in_the_public_implementation(
    golden_gpt: GPT, golden: Golden
) -> None:
    data = golden("small_long")
    rope = rope_tables(golden_gpt.config, 2048)
    with torch.inference_mode():
        logits = golden_gpt.logits(data["x"], rope)[:, data["positions"]]
        short_base = golden_gpt.logits(data["x"], _unstretched(golden_gpt.config, 2048))
    largest = data["logits"].abs().max()
    assert (logits - data["logits"]).abs().max() <= 1e-5 * largest
    assert (short_base[:, data["positions"]] - data["logits"]).abs().max() > 1e-3 * largest


def _unstretched(config: ModelConfig, length: int) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, config.rope_dims, 2) / config.rope_dims
    angles = torch.outer(torch.arange(length).float(), config.rope_base**-exponents)
    return angles.cos(), angles.sin()


# ---- names and sizes ----


def test_the_record_s_model_has_the_checkpoint_s_121_tensors_and_26_993_756_parameters() -> None:
    with torch.device("meta"):
        gpt = GPT(ModelConfig(), choose_backend(CPU, torch.float32))
    shapes = {name: tuple(tensor.shape) for name, tensor in gpt.state_dict().items()}
    assert len(shapes) == 121
    assert sum(math.prod(shape) for shape in shapes.values()) == 26_993_756
    block = {
        "attn.c_q.weight": (512, 512),
        "attn.c_k.weight": (256, 512),
        "attn.c_v.weight": (256, 512),
        "attn.proj.weight": (512, 512),
        "attn.q_gain": (8,),
        "mlp.fc.weight": (1536, 512),
        "mlp.proj.weight": (512, 1536),
        "attn_scale": (512,),
        "mlp_scale": (512,),
        "resid_mix": (2, 512),
    }
    wanted: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (1024, 512),
        "bigram.embed.weight": (2048, 128),
        "bigram.proj.weight": (512, 128),
        "bigram.scale": (),
        "smear.gate": (512,),
        "skip_weights": (5, 512),
        "ve_shared.embed.weight": (1024, 128),
        "ve_shared.proj.weight": (256, 128),
        "ve_shared.scale": (),
        "ve_layer_scales.0": (1,),
        "ve_layer_scales.1": (1,),
        **{f"blocks.{i}.{name}": shape for i in range(11) for name, shape in block.items()},
    }
    assert shapes == wanted


def test_names_are_the_golden_weights(golden_gpt: GPT, golden: Golden) -> None:
    given_names = {k.removeprefix("w/") for k in golden("small_forward") if k.startswith("w/")}
    assert {name for name, _ in golden_gpt.named_parameters()} == given_names


def test_without_value_layers_there_is_no_value_embedding() -> None:
    gpt = live_gpt(replace(SMALL, ve_layers=()))
    assert not [name for name, _ in gpt.named_parameters() if name.startswith("ve_")]
    assert gpt(random_ids(1, 9), random_ids(1, 9), rope_tables(SMALL, 9)).isfinite().all()


def test_a_single_layer_has_no_skips_and_runs() -> None:
    config = replace(SMALL, num_layers=1, xsa_last_n=1, ve_layers=(0,))
    gpt = live_gpt(config)
    assert gpt.skip_weights.shape == (0, 32)
    assert gpt(random_ids(1, 9), random_ids(1, 9), rope_tables(config, 9)).isfinite().all()


# ---- causality ----


@pytest.fixture(scope="module")
def alive() -> GPT:
    return live_gpt()


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(2, 24), where=st.data(), token=st.integers(0, SMALL.vocab_size - 1)
)  # fmt: skip
def test_a_token_changes_no_prediction_before_it_and_the_one_at_it(
    alive: GPT, length: int, where: st.DataObject, token: int
) -> None:
    """With smear, bigrams, skips, value embeddings and XSA all at work."""
    t = where.draw(st.integers(0, length - 1))
    gpt, rope = alive, rope_tables(SMALL, 24)
    ids = random_ids(1, length)
    changed = ids.clone()
    changed[0, t] = token
    with torch.inference_mode():
        before, after = gpt.logits(ids, rope), gpt.logits(changed, rope)
    assert torch.equal(before[:, :t], after[:, :t])
    if token != ids[0, t]:
        assert not torch.equal(before[:, t], after[:, t])


@pytest.mark.parametrize("scored", [1, 5, 12])
def test_scores_of_earlier_targets_do_not_depend_on_later_ones(scored: int) -> None:
    gpt, rope = live_gpt(), rope_tables(SMALL, 12)
    tokens = random_ids(1, 13)
    changed = tokens.clone()
    changed[0, -1] = (tokens[0, -1] + 1) % SMALL.vocab_size
    with torch.inference_mode():
        before, after = (
            gpt(t[:, :-1], t[:, 13 - scored :], rope) for t in (tokens, changed)
        )  # fmt: skip
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert before[0, -1] != after[0, -1]


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    gpt, rope = live_gpt(), rope_tables(SMALL, 16)
    ids = random_ids(3, 16)
    changed = ids.clone()
    changed[1] = random_ids(16, seed=9)
    with torch.inference_mode():
        before, after = gpt.logits(ids, rope), gpt.logits(changed, rope)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_every_weight_has_a_say() -> None:
    gpt = live_gpt()
    gpt(random_ids(4, 24), random_ids(4, 24, seed=2), rope_tables(SMALL, 24)).mean().backward()
    silent = [n for n, p in gpt.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


# ---- scoring the end of a window ----


@pytest.mark.parametrize("num_layers", [1, 2, 5])
@pytest.mark.parametrize("scored", [1, 8, 63, 64])
def test_scoring_the_last_positions_only_gives_the_full_forward_s_numbers(
    scored: int, num_layers: int
) -> None:
    config = replace(SMALL, num_layers=num_layers, xsa_last_n=1, ve_layers=(num_layers - 1,))
    gpt, rope = live_gpt(config), rope_tables(config, 64)
    tokens = random_ids(2, 65)
    with torch.inference_mode():
        full = gpt(tokens[:, :-1], tokens[:, 1:], rope)
        last = gpt(tokens[:, :-1], tokens[:, 65 - scored :], rope)
    assert last.shape == (2, scored)
    torch.testing.assert_close(last, full[:, 64 - scored :], rtol=1e-5, atol=2e-6)


# ---- arithmetic ----


def test_a_rotation_first_asked_for_while_scoring_can_be_trained_with() -> None:
    gpt = fresh_gpt()
    ids = random_ids(2, 16)
    with torch.inference_mode():
        rope = rope_tables(SMALL, 16)
        gpt(ids, ids, rope)
    assert not any(table.is_inference() for table in rope)
    gpt(ids, ids, rope).mean().backward()


def test_logits_stay_within_the_softcap() -> None:
    gpt = live_gpt()
    with torch.no_grad():
        gpt.tok_emb.weight.mul_(1000)
    logits = gpt.logits(random_ids(1, 16), rope_tables(SMALL, 16))
    assert 29 < logits.abs().max() <= 30


def test_bfloat16_under_autocast_is_close_to_float32_and_its_loss_is_float32(
    golden_gpt: GPT, golden: Golden
) -> None:
    data = golden("small_forward")
    half = fresh_gpt(golden_gpt.config, torch.bfloat16)
    half.load_state_dict(golden_gpt.state_dict())
    dtypes = {n: p.dtype for n, p in half.named_parameters()}
    embeddings = {n for n, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert embeddings == {n for n in dtypes if re.search(r"(tok_emb|embed)\.weight", n)}
    rope = rope_tables(golden_gpt.config, 96)
    with autocast(CPU, torch.bfloat16):
        nll = half(data["x"], data["y"], rope)
    nll.mean().backward()
    assert nll.dtype == torch.float32
    exact = golden_gpt(data["x"], data["y"], rope)
    assert not torch.equal(nll, exact)
    assert nll.mean().item() == pytest.approx(data["loss"].item(), rel=2e-3)
    wanted = torch.cat([v.flatten() for k, v in data.items() if k.startswith("g/")])
    names = [k.removeprefix("g/") for k in data if k.startswith("g/")]
    gradients = dict(half.named_parameters())
    got = torch.cat([gradients[n].grad.float().flatten() for n in names])  # type: ignore[union-attr]
    assert relative(got, wanted) < 0.05


# ---- the start ----

WIDE = replace(
    SMALL, vocab_size=512, num_layers=3, model_dim=128, bigram_dim=64, ve_dim=64, ve_layers=(2,)
)
"""Wide enough for every matrix to be orthogonal."""


@pytest.fixture(scope="module")
def wide() -> dict[str, Tensor]:
    return fresh_gpt(WIDE).state_dict()


def assert_orthogonal(weight: Tensor, gain: float) -> None:
    short = weight if weight.size(0) <= weight.size(1) else weight.T
    gram = short @ short.T / gain**2
    torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["attn.c_q", "attn.c_k", "attn.c_v", "mlp.fc"])
def test_inner_matrices_start_orthogonal(name: str, wide: dict[str, Tensor]) -> None:
    assert_orthogonal(wide[f"blocks.1.{name}.weight"], 1.0)


@pytest.mark.parametrize("name", ["bigram.proj.weight", "ve_shared.proj.weight"])
def test_side_projections_start_orthogonal_and_scaled_by_depth(
    name: str, wide: dict[str, Tensor]
) -> None:
    assert_orthogonal(wide[name], 1 / math.sqrt(2 * 3))


def test_output_projections_and_bigrams_start_at_zero(wide: dict[str, Tensor]) -> None:
    zero = {name for name, weight in wide.items() if not weight.any()}
    outputs = {f"blocks.{i}.{part}.proj.weight" for i in range(3) for part in ("attn", "mlp")}
    assert zero == outputs | {"bigram.embed.weight", "smear.gate"}


def test_embeddings_start_normal(wide: dict[str, Tensor]) -> None:
    for name, std in (("tok_emb.weight", 0.005), ("ve_shared.embed.weight", 0.01)):
        weight = wide[name]
        assert weight.std().item() == pytest.approx(std, rel=0.03)
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())
        assert weight.abs().max() > 3 * std  # no uniform has that


def test_vectors_start_as_published(wide: dict[str, Tensor]) -> None:
    for i in range(3):
        assert (wide[f"blocks.{i}.attn_scale"] == 1).all()
        assert (wide[f"blocks.{i}.mlp_scale"] == 1).all()
        assert (wide[f"blocks.{i}.attn.q_gain"] == 1.5).all()
        mix = wide[f"blocks.{i}.resid_mix"]
        assert (mix[0] == 1).all()
        assert (mix[1] == 0).all()
    assert (wide["skip_weights"] == 1).all()
    assert (wide["ve_layer_scales.0"] == 1).all()
    assert wide["bigram.scale"].item() == pytest.approx(0.05)
    assert wide["ve_shared.scale"].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [("bigram.proj.weight", 8), ("ve_shared.proj.weight", 8), ("blocks.0.attn.c_q.weight", 32)],
)
def test_matrices_with_a_short_side_keep_torch_s_default_start(name: str, fan_in: int) -> None:
    weight = fresh_gpt().state_dict()[name]
    bound = 1 / math.sqrt(fan_in)
    assert 0.9 * bound < weight.abs().max() <= bound


def test_the_seed_decides_the_start() -> None:
    def start(seed: int) -> nn.Parameter:
        torch.manual_seed(seed)
        gpt = GPT(SMALL, choose_backend(CPU, torch.float32))
        return gpt.tok_emb.weight

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_the_start_predicts_nothing() -> None:
    """Logits of embeddings this small are near 0: the loss starts at log(vocabulary)."""
    gpt = fresh_gpt()
    nll = gpt(random_ids(2, 24), random_ids(2, 24, seed=2), rope_tables(SMALL, 24))
    assert nll.mean().item() == pytest.approx(math.log(SMALL.vocab_size), abs=0.02)
