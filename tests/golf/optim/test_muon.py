from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golf.optim.muon import Muon, orthogonalise


def test_five_steps_are_the_public_implementation_s(golden_dir: Path) -> None:
    """Its Newton-Schulz runs in bfloat16; in the same order of products 5e-3 is what is left."""
    with np.load(golden_dir / "muon.npz") as file:
        data = {key: torch.from_numpy(value) for key, value in file.items()}
    parameters = [nn.Parameter(data[f"p0/{i}"].clone()) for i in range(4)]
    muon = Muon(parameters, weight_decay=0.04)
    for step in range(5):
        for i, parameter in enumerate(parameters):
            parameter.grad = data[f"g/{step}/{i}"].clone()
        muon.step(lr=0.025, momentum=0.95)
    for i, parameter in enumerate(parameters):
        update, wanted = parameter.detach() - data[f"p0/{i}"], data[f"p5/{i}"] - data[f"p0/{i}"]
        assert (update - wanted).norm() <= 5e-3 * wanted.norm()


def matrices(*shapes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (32, 96)])
def test_orthogonalised_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    """Jordan's coefficients trade exactness for speed: they end between about 0.6 and 1.2."""
    (G,) = matrices(shape)
    values = torch.linalg.svdvals(orthogonalise(G[None])[0].float())
    assert orthogonalise(G[None]).dtype == torch.bfloat16
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_orthogonalised_matrices_keep_their_singular_vectors() -> None:
    (G,) = matrices((24, 40))
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    O = orthogonalise(G[None])[0].float()  # noqa: E741
    assert torch.cosine_similarity(O.flatten(), (U @ Vh).flatten(), dim=0) > 0.97


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**20])
def test_the_size_of_a_gradient_does_not_matter(scale: float) -> None:
    """Powers of two, so that rounding is the same."""
    (G,) = matrices((16, 16))
    assert torch.equal(orthogonalise(G[None] * scale), orthogonalise(G[None]))


def test_a_gradient_of_zero_gives_zero() -> None:
    assert not orthogonalise(torch.zeros(2, 8, 4)).any()


def test_a_batch_of_matrices_steps_like_each_alone() -> None:
    shapes = [(48, 16), (16, 16), (48, 16), (16, 48), (48, 16)]

    def step(parameters: list[nn.Parameter], gradients: list[Tensor], muon: Muon) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        muon.step(lr=0.1, momentum=0.9)

    together, alone = ([nn.Parameter(m) for m in matrices(*shapes)] for _ in range(2))
    muon = Muon(together, 0.04)
    singles = [Muon([p], 0.04) for p in alone]
    for seed in (1, 2):
        gradients = matrices(*shapes, seed=seed)
        step(together, gradients, muon)
        for parameter, gradient, single in zip(alone, gradients, singles, strict=True):
            step([parameter], [gradient], single)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_the_first_step_is_decay_then_a_scaled_orthogonal_step() -> None:
    """With a fresh buffer the Nesterov momentum points along the gradient."""
    (p0, gradient) = matrices((64, 16), (64, 16))
    parameter = nn.Parameter(p0.clone())
    parameter.grad = gradient.clone()
    Muon([parameter], weight_decay=0.5).step(lr=0.1, momentum=0.9)
    step = orthogonalise(gradient[None] * 1.9)[0].float() * math.sqrt(64 / 16)
    torch.testing.assert_close(parameter.detach(), p0 * (1 - 0.1 * 0.5) - 0.1 * step, atol=1e-2,
                               rtol=0)  # fmt: skip


def test_a_wide_matrix_is_not_scaled_down() -> None:
    (gradient,) = matrices((16, 64))
    parameter = nn.Parameter(torch.zeros(16, 64))
    parameter.grad = gradient
    Muon([parameter], weight_decay=0.0).step(lr=1.0, momentum=0.0)
    assert parameter.norm().item() == pytest.approx(math.sqrt(16), rel=0.15)
