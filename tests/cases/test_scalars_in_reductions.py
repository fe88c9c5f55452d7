"""Tensors without axes: reductions and encodings take them as eager does, dim=-1 and dim=0 mean the only element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare

Tensor = torch.Tensor
ALONG: dict[str, Callable[[Tensor, int], Any]] = {
    "cosine_similarity": lambda x, d: F.cosine_similarity(x, x * -2, dim=d),
    "reductions": lambda x, d: [
        x.sum(d),
        x.mean(d),
        x.prod(d),
        x.amax(d),
        x.amin(d, True),
        x.logsumexp(d),
        x.norm(dim=d),
    ],
    "vector_norm": lambda x, d: [torch.linalg.vector_norm(x, p, d) for p in (0, 1, 2, 3, float("inf"))],
    "logical": lambda x, d: [(x > 0).any(d), (x > 0).all(d), x.count_nonzero(d), x.nansum(d)],
    "softmax": lambda x, d: [x.softmax(d), x.log_softmax(d), F.softmin(x, d)],
    "running": lambda x, d: [x.cumsum(d), x.cumprod(d), *x.cummax(d), *x.cummin(d), x.logcumsumexp(d)],
    "extrema": lambda x, d: [*x.max(d), *x.min(d), x.argmax(d), x.argmin(d, True), *torch.aminmax(x, dim=d)],
    "orders": lambda x, d: [*x.sort(d), x.argsort(d), *x.topk(1, d), *x.kthvalue(1, d), *x.median(d), *x.mode(d)],
    "quantile": lambda x, d: [x.quantile(0.3, d), *x.nanmedian(d)],
    "indexing": lambda x, d: [
        x.gather(d, torch.tensor(0)),
        x.index_select(d, torch.tensor([0])),
        x.scatter(d, torch.tensor(0), 5.0),
        x.scatter_add(d, torch.tensor(0), x),
        x.index_add(d, torch.tensor([0]), x),
        x.index_fill(d, torch.tensor(0), 7.0),
    ],
    "moving": lambda x, d: [x.flip(d), x.unsqueeze(d), torch.stack([x, x], d), x.squeeze(d), x.transpose(d, d)],
    "vecdot": lambda x, d: [F.normalize(x, dim=d), F.glu(x.expand(2), 0)],
}
WHOLE: dict[str, Callable[[Tensor], Any]] = {
    "one_hot": lambda x: F.one_hot((x > 0).long(), 3),
    "statistics": lambda x: [
        x.sum(),
        x.mean(),
        x.max(),
        x.min(),
        x.argmax(),
        x.median(),
        x.norm(),
        x.var(correction=0),
    ],
    "shapes": lambda x: [
        x.reshape(1),
        x.flatten(),
        x.expand(3),
        x.repeat(2),
        x.tile(2),
        x.roll(1),
        x.t(),
        x.view(1, 1),
    ],
    "distances": lambda x: [torch.dist(x, x + 1), F.mse_loss(x, x + 1), F.l1_loss(x, x * 2), torch.inner(x, x)],
    "selection": lambda x: [
        x.nonzero(),
        x.masked_select(x > 0),
        x.unique(),
        torch.where(x > 0, x, -x),
        x.take(torch.tensor(0)),
    ],
    "encodings": lambda x: [
        torch.bucketize(x, torch.tensor([1.0, 3.0])),
        F.embedding((x > 0).long(), torch.ones(2, 3)),
        torch.atleast_2d(x),
        x.repeat_interleave(2),
        torch.hstack([x, x]),
        torch.cartesian_prod(x.reshape(1), x.reshape(1)),
        torch.kron(x, x),
    ],
}


@pytest.mark.parametrize("name", ALONG)
def test_along_the_only_axis(name: str) -> None:
    export_and_compare(lambda x: [ALONG[name](x, -1), ALONG[name](x, 0)], (torch.tensor(2.0625),))


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_scalar(name: str) -> None:
    export_and_compare(WHOLE[name], (torch.tensor(2.0625),))


@pytest.mark.parametrize("classes", [2, 5])
def test_one_hot_of_a_scalar_index(classes: int) -> None:
    export_and_compare(lambda x: F.one_hot(x, classes), (torch.tensor(1),))
