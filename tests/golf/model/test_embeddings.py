from __future__ import annotations

import torch
from small_gpt import SMALL, Golden, random_ids
from torch import Tensor

from golf.model.embeddings import BigramHash, Smear, ValueEmbedding, bigram_ids


def test_bigram_rows_are_the_public_implementation_s(golden: Golden) -> None:
    data = golden("bigram")
    assert torch.equal(bigram_ids(data["tokens"], 2048).long(), data["ids"])


def test_bigram_products_wrap_around_in_32_bits() -> None:
    """65,535 times 36,313 exceeds an int32; the row is what C gives, made non-negative."""
    token, previous = 65_535, 65_534

    def wrapped(product: int) -> int:
        return (product + 2**31) % 2**32 - 2**31

    row = (wrapped(36313 * token) ^ wrapped(27191 * previous)) % 2047
    assert bigram_ids(torch.tensor([[previous, token]]), 2048).tolist() == [[2047, row]]


def test_the_first_position_takes_the_last_row_and_no_other_does() -> None:
    ids = bigram_ids(torch.randint(1024, (8, 500)), 48)
    assert (ids[:, 0] == 47).all()
    assert (ids[:, 1:] < 47).all()
    assert (ids[:, 1:] >= 0).all()


def test_a_bigram_adds_its_projected_row_times_its_scale() -> None:
    torch.manual_seed(0)
    bigram, ids = BigramHash(SMALL), random_ids(2, 7)
    rows = bigram.embed.weight[bigram_ids(ids, SMALL.bigram_vocab_size).long()]
    torch.testing.assert_close(bigram(ids), rows @ bigram.proj.weight.T * 0.05)


def test_smear_mixes_the_gate_s_share_of_the_position_before() -> None:
    smear = Smear(2)
    with torch.no_grad():
        smear.gate.copy_(torch.tensor([0.0, 20.0]))
    x = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]])
    mixed = smear(x)
    half = [[0.5], [1.5], [3.0]]  # gate 0: half and half, with nothing before the first
    torch.testing.assert_close(mixed[0, :, :1], torch.tensor(half))
    torch.testing.assert_close(mixed[0, :, 1], torch.tensor([0.0, 1.0, 2.0]))


def test_a_value_embedding_is_its_projected_row_times_its_scale() -> None:
    torch.manual_seed(0)
    ve, ids = ValueEmbedding(SMALL), random_ids(2, 7)
    got: Tensor = ve(ids)
    assert got.shape == (2, 7, 16)
    torch.testing.assert_close(got, ve.embed.weight[ids] @ ve.proj.weight.T * 0.1)
