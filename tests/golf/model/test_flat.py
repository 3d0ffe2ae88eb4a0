from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_gpt import SMALL, fresh_gpt, live_gpt, random_ids
from torch import Tensor

from golf.model.attention import rope_tables
from golf.model.flat import PIECE, FlatParameters, multilinear_sums
from golf.model.gpt import GPT

MIXED = torch.bfloat16
"""The embeddings' dtype in these tests where two buffers are wanted."""


def backward(gpt: GPT) -> None:
    ids = random_ids(2, 16)
    gpt(ids, ids, rope_tables(SMALL, 16)).mean().backward()


# ---- views ----


def test_the_model_computes_the_same_in_flat_memory() -> None:
    gpt, ids = live_gpt(), random_ids(2, 16)
    before = gpt(ids, ids, rope_tables(SMALL, 16))
    flat = FlatParameters(gpt)
    assert torch.equal(gpt(ids, ids, rope_tables(SMALL, 16)), before)
    assert [v.numel() for v in flat.values] == [sum(p.numel() for p in gpt.parameters())]


def test_parameters_stay_views_after_loading_and_stepping() -> None:
    gpt = live_gpt()
    flat = FlatParameters(gpt)
    gpt.load_state_dict(fresh_gpt().state_dict())
    torch.optim.SGD(gpt.parameters(), lr=0.0).step()
    flat.values[0].fill_(7.0)
    assert all((p == 7).all() for p in gpt.parameters())
    with torch.no_grad():
        gpt.tok_emb.weight[0, 0] = 3.0
    assert (flat.values[0] == 3.0).sum() == 1


def test_gradients_land_in_the_buffer_and_add_up_until_zeroed() -> None:
    gpt = live_gpt()
    flat = FlatParameters(gpt)
    backward(gpt)
    once = flat.gradients[0].clone()
    wanted = torch.cat([dict(gpt.named_parameters())[n].grad.flatten() for n in sorted_names(gpt)])  # type: ignore[union-attr]
    assert once.any()
    assert torch.equal(once, wanted)
    backward(gpt)
    torch.testing.assert_close(flat.gradients[0], 2 * once)
    flat.zero_gradients()
    assert not any(p.grad.any() for p in gpt.parameters() if p.grad is not None)


def sorted_names(gpt: GPT) -> list[str]:
    return sorted(name for name, _ in gpt.named_parameters())


def test_two_dtypes_lie_in_two_buffers() -> None:
    gpt = live_gpt(dtype=MIXED)
    flat = FlatParameters(gpt)
    assert [v.dtype for v in flat.values] == [torch.bfloat16, torch.float32]
    embeddings = sum(p.numel() for p in gpt.parameters() if p.dtype == torch.bfloat16)
    assert flat.values[0].numel() == embeddings > 0
    assert [g.dtype for g in flat.gradients] == [v.dtype for v in flat.values]


def test_unflatten_gives_names_and_shapes_and_shares_memory() -> None:
    gpt = live_gpt(dtype=MIXED)
    flat = FlatParameters(gpt)
    named = flat.unflatten(flat.values)
    assert set(named) == set(sorted_names(gpt))
    assert all(torch.equal(named[n], p) for n, p in gpt.named_parameters())
    named["bigram.scale"].fill_(0.75)
    assert gpt.bigram.scale.item() == 0.75


def test_like_values_are_float32_copies_of_their_own() -> None:
    gpt = live_gpt(dtype=MIXED)
    flat = FlatParameters(gpt)
    copies = flat.like_values()
    assert all(c.dtype == torch.float32 for c in copies)
    assert all(torch.equal(c, v.float()) for c, v in zip(copies, flat.values, strict=True))
    copies[1].zero_()
    assert flat.values[1].all()


def test_frozen_parameters_get_no_gradient_and_their_place_stays_zero() -> None:
    gpt = live_gpt()
    flat = FlatParameters(gpt, frozen=lambda name: name.startswith("blocks.0."))
    backward(gpt)
    gradients = flat.unflatten(flat.gradients)
    assert not any(g.any() for n, g in gradients.items() if n.startswith("blocks.0."))
    assert all(g.any() for n, g in gradients.items() if not n.startswith("blocks.0."))


# ---- clipping ----


def set_gradients(flat: FlatParameters, *values: float) -> None:
    for gradient, value in zip(flat.gradients, values, strict=True):
        gradient.zero_()
        gradient[0] = value


def test_clipping_scales_by_the_norm_over_both_buffers() -> None:
    flat = FlatParameters(live_gpt(dtype=MIXED))
    set_gradients(flat, 3.0, 4.0)
    flat.clip_gradients(1.0)
    assert flat.gradients[0][0].item() == pytest.approx(0.6, rel=4e-3)  # bfloat16
    assert flat.gradients[1][0].item() == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, 5.1])
def test_gradients_within_the_norm_and_without_a_limit_stay_as_they_are(max_norm: float) -> None:
    flat = FlatParameters(live_gpt(dtype=MIXED))
    set_gradients(flat, 3.0, 4.0)
    flat.clip_gradients(max_norm)
    assert [g[0].item() for g in flat.gradients] == [3.0, 4.0]


# ---- the digest ----


def test_equal_weights_have_equal_digests_whatever_is_frozen_or_was_done_before() -> None:
    gpt, other = live_gpt(), fresh_gpt()
    flat = FlatParameters(gpt)
    frozen = FlatParameters(other, frozen=lambda name: "blocks" in name)
    assert frozen.digest() != flat.digest()
    other.load_state_dict(gpt.state_dict())
    assert frozen.digest() == flat.digest()
    backward(gpt)
    assert frozen.digest() == flat.digest()


@pytest.fixture(scope="module")
def mixed() -> tuple[FlatParameters, str]:
    flat = FlatParameters(live_gpt(dtype=MIXED))
    return flat, flat.digest()


@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_any_single_bit_of_any_weight_changes_the_digest(
    mixed: tuple[FlatParameters, str], draw: st.DataObject
) -> None:
    flat, digest = mixed
    buffer = flat.values[draw.draw(st.integers(0, 1))]
    words = buffer.view({2: torch.int16, 4: torch.int32}[buffer.element_size()])
    place = draw.draw(st.integers(0, len(words) - 1))
    bit = draw.draw(st.integers(0, buffer.element_size() * 8 - 1))
    original = words[place].clone()
    flipped = original ^ torch.ones_like(original).bitwise_left_shift(bit)
    try:
        words[place] = flipped
        assert flat.digest() != digest
    finally:
        words[place] = original
    assert flat.digest() == digest


def test_exchanged_weights_change_the_digest() -> None:
    gpt = live_gpt()
    flat = FlatParameters(gpt)
    before = flat.digest()
    first, second = (gpt.blocks[i].attn.c_q.weight for i in (0, 1))
    with torch.no_grad():
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)
    assert flat.digest() != before


def test_the_same_numbers_under_another_dtype_or_shape_have_another_digest() -> None:
    def digest(parameter: Tensor) -> str:
        module = torch.nn.Module()
        module.w = torch.nn.Parameter(parameter)
        return FlatParameters(module).digest()

    zeros = torch.zeros(6)
    digests = {digest(zeros), digest(zeros.view(2, 3)), digest(zeros.view(3, 2))}
    assert len(digests | {digest(zeros.bfloat16()), digest(torch.zeros(7)), digest(-zeros)}) == 6


@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, 2 * PIECE, 2 * PIECE + 4])
@pytest.mark.parametrize("bit", [0, 31])
def test_both_sums_see_every_piece_of_a_long_buffer(place: int, bit: int) -> None:
    values = torch.zeros(2 * PIECE + 5)
    before = multilinear_sums(values)
    values[place] = struct.unpack("<f", struct.pack("<I", 1 << bit))[0]
    after = multilinear_sums(values)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_exchanged_pieces_of_a_long_buffer_are_noticed() -> None:
    values = torch.arange(2 * PIECE, dtype=torch.float32)
    exchanged = values.roll(PIECE)
    assert multilinear_sums(values)[0] != multilinear_sums(exchanged)[0]


def test_the_digest_is_defined_once_and_for_all() -> None:
    """Ledgers of earlier versions must still verify: the value is part of their format."""
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.arange(8.0).view(2, 4))
    wanted = "37ffd0cfe9349e5331d7136337afa49ea1170511bdf4b7b0a53e293650ade792"
    assert FlatParameters(module).digest() == wanted
