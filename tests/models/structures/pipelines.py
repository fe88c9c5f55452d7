"""Whole steps of real systems: detection, audio, decoding, routing, graphs, losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch._higher_order_ops import while_loop
from torch.nn import functional as F

from models.structures.structure import BUFFER, floats, ints, structure

BOXES = floats(6, 4).abs().cumsum(1)
SCORES = floats(6).sigmoid()
MANY_BOXES, MANY_SCORES = floats(9, 4, scale=1.5).abs().cumsum(1), floats(9, scale=3.0).sigmoid()
DETECTIONS: dict[str, Any] = {"dynamic": ({0: "boxes"}, {0: "boxes"}), "other": (MANY_BOXES, MANY_SCORES)}


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of all pairs of boxes (x1, y1, x2, y2)."""
    size = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0)
    both = size.prod(-1)
    areas = [(c[:, 2:] - c[:, :2]).prod(-1) for c in (a, b)]
    return both / (areas[0][:, None] + areas[1] - both)


@structure(BOXES, SCORES, **DETECTIONS)
def greedy_suppression_by_a_loop(boxes: torch.Tensor, scores: torch.Tensor) -> Any:
    order = scores.argsort(descending=True, stable=True)
    iou = overlaps(boxes[order], boxes[order])

    def step(i: torch.Tensor, keep: torch.Tensor) -> Any:
        row = iou.index_select(0, i.reshape(1))[0]
        later = torch.arange(keep.shape[0]) > i
        return i + 1, keep & ~((row > 0.3) & later & keep.index_select(0, i.reshape(1)))

    start = torch.ones(boxes.shape[0], dtype=torch.bool)
    _, keep = while_loop(lambda i, keep: i < boxes.shape[0], step, (torch.tensor(0), start))
    return order[keep]


@structure(BOXES, SCORES, **DETECTIONS)
def matrix_suppression_of_soft_scores(boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
    scores, order = scores.sort(descending=True, stable=True)
    iou = overlaps(boxes[order], boxes[order]).triu(1)
    worst = iou.amax(0)
    decay = ((1 - iou) / (1 - worst[:, None]).clamp_min(0.1)).amin(0)
    kept = scores * decay > 0.2
    return (scores * decay)[kept], boxes[order][kept]


@structure(BOXES, SCORES, **DETECTIONS)
def detections_filtered_and_ranked(boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
    keep = (scores > 0.3).nonzero().squeeze(1)
    boxes, scores = boxes[keep], scores[keep]
    wide = (boxes[:, 2] - boxes[:, 0]) > 0.1
    boxes, scores = boxes[wide], scores[wide]
    order = scores.argsort(descending=True)
    return boxes[order].clamp(0, 4), scores[order]


@structure(floats(2, 3 * 7, 4, 5), dynamic=({0: "batch", 2: "height", 3: "width"},), other=(floats(1, 21, 6, 3),))
def grid_of_anchors_decoded(x: torch.Tensor) -> torch.Tensor:
    batch, _, height, width = x.shape
    y = x.view(batch, 3, 7, height, width).permute(0, 1, 3, 4, 2)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([columns, rows], -1).float()
    anchors = torch.tensor([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])[:, None, None]
    centre, size = y[..., :2].sigmoid() * 2 - 0.5 + grid, y[..., 2:4].exp() * anchors
    return torch.cat([centre - size / 2, centre + size / 2, y[..., 4:].sigmoid()], -1).flatten(1, 3)


@structure(floats(2, 3, 16), dynamic=({0: "batch", 2: "places"},), other=(floats(1, 3, 25),))
def distances_of_a_distribution_head(x: torch.Tensor) -> torch.Tensor:
    batch, _, places = x.shape
    bins = x.unflatten(1, (1, 3)).softmax(2)
    return (bins * torch.arange(3.0)[:, None]).sum(2).expand(batch, 1, places)


@structure(floats(1, 2, 6, 6), dynamic=({2: "height", 3: "width"},), other=(floats(1, 2, 8, 5),))
def peaks_of_a_heatmap(heat: torch.Tensor) -> tuple[torch.Tensor, ...]:
    peaks = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
    scores, places = peaks.flatten(1).topk(4)
    area = heat.shape[2] * heat.shape[3]
    return scores, places // area, places % area // heat.shape[3], places % heat.shape[3]


@structure(floats(2, 400), dynamic=({0: "batch", 1: "samples"},), other=(floats(1, 640),), atol=1e-4)
class MelSpectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        edges = torch.linspace(0, 33, 10)
        bins = torch.arange(33.0)[:, None]
        rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
        self.register_buffer("filters", torch.minimum(rising, falling).clamp_min(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], 1)
        power = torch.stft(x, 64, 32, window=self.window, return_complex=True).abs().square()
        mel = (power.mT @ self.filters).clamp_min(1e-5).log10()
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8)
        return (mel - mel.mean(1, keepdim=True)) / (mel.std(1, keepdim=True) + 1e-5)


@structure(floats(2, 40), dynamic=({0: "batch"},), other=(floats(3, 40),), atol=1e-4)
class CepstralCoefficients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(10.0)
        self.register_buffer("dct", torch.cos(math.pi / 10 * (n + 0.5) * torch.arange(5.0)[:, None]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.unfold(1, 18, 11) * torch.hamming_window(18)
        energy = torch.fft.rfft(frames).abs()[..., :10].clamp_min(1e-3).log()
        return energy @ self.dct.t()


@structure(floats(1, 300), dynamic=({1: "samples"},), other=(floats(1, 450),))
class WaveformEncoder(nn.Module):
    """The strided convolutions with group norm of wav2vec, and a position convolution with weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, 4, 10, 5, bias=False), nn.GroupNorm(4, 4)
        self.position = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 4, padding=2, groups=2), dim=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.gelu(self.norm(self.first(((x - x.mean()) / x.std())[:, None])))
        return y + F.gelu(self.position(y)[:, :, :-1])


@structure(floats(2, 3, 7), floats(2, 3), dynamic=({0: "batch"}, {0: "batch"}), other=(floats(4, 3, 7), floats(4, 3)))
def beam_search_step(logits: torch.Tensor, totals: torch.Tensor) -> tuple[torch.Tensor, ...]:
    scores = logits.log_softmax(-1) + totals[..., None]
    best, places = scores.flatten(1).topk(3)
    beams, tokens = places // 7, places % 7
    finished = tokens == 2
    return best.masked_fill(finished, -1e9), beams + torch.arange(logits.shape[0])[:, None] * 3, tokens, finished.any(1)


@structure(ints(5, 3, 2).reshape(1, 3), other=(ints(1, 1, 1).reshape(1, 3),))
class GreedyDecodingInALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)

    def forward(self, prompt: torch.Tensor) -> Any:
        tokens = F.pad(prompt, (0, 4))

        def step(at: torch.Tensor, tokens: torch.Tensor) -> Any:
            seen = (torch.arange(7) < at)[None, :, None]
            context = (self.embedding(tokens) * seen).sum(1) / at
            new = self.head(context).argmax(-1, keepdim=True)
            return at + 1, tokens.index_copy(1, at.reshape(1), new)

        return while_loop(lambda at, tokens: at < 7, step, (torch.tensor(3), tokens))[1]


@structure(floats(3, 12), ints(1, 4, 4, 1, 7, 0).reshape(3, 2), dynamic=({0: "batch"}, {0: "batch", 1: "past"}),
           other=(floats(2, 12), ints(2, 2, 2, 3, 5, 0).reshape(2, 3)))  # fmt: skip
def repetition_penalty_and_nucleus(logits: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    seen = logits.gather(1, past)
    logits = logits.scatter(1, past, torch.where(seen < 0, seen * 1.3, seen / 1.3))
    ordered, places = logits.sort(descending=True, stable=True)
    drop = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1) > 0.9
    return logits.masked_fill(torch.zeros_like(drop).scatter(1, places, drop), float("-inf"))


@structure(floats(5, 6), dynamic=({0: "tokens"},), other=(floats(9, 6),))
class ExpertsRoutedWithIndexAdd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == i)
            y.index_add_(0, token, expert(x[token]) * weights[token, slot, None])
        return y


@structure(floats(5, 6), dynamic=({0: "tokens"},), other=(floats(9, 6),))
class ExpertsDispatchedByOneHot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.weights = nn.Linear(6, 3), nn.Parameter(floats(3, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, chosen = self.router(x).softmax(-1).max(-1)
        hot = F.one_hot(chosen, 3)
        place = (hot.cumsum(0) * hot).sum(1) - 1
        slot = F.one_hot(place.clamp_max(3), 4) * (place < 4)[:, None]
        dispatch = (hot[:, :, None] * slot[:, None]).to(x.dtype)
        inputs = torch.einsum("tes,tc->esc", dispatch, x)
        return torch.einsum("tes,esc->tc", dispatch, torch.bmm(inputs, self.weights)) * gate[:, None]


@structure(floats(5, 6), dynamic=({0: "tokens"},), other=(floats(9, 6),))
class ExpertsSortedIntoGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.weights = nn.Linear(6, 3), nn.Parameter(floats(3, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        expert, order = self.router(x).argmax(-1).sort(stable=True)
        y = torch.bmm(x[order].unsqueeze(1), self.weights[expert]).squeeze(1)
        return torch.empty_like(y).index_copy_(0, order, y)


EDGES = torch.tensor([[0, 1, 2, 2, 4], [1, 0, 1, 3, 3]])
MORE_EDGES = torch.tensor([[0, 1, 2, 2, 4, 5, 6, 6], [1, 0, 1, 3, 3, 6, 5, 0]])
GRAPH: dict[str, Any] = {"dynamic": ({0: "nodes"}, {1: "edges"}), "other": (floats(7, 6), MORE_EDGES)}


@structure(floats(5, 6), EDGES, **GRAPH)
class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        nodes = torch.arange(x.shape[0])
        source, target = torch.cat([edges, torch.stack([nodes, nodes])], 1)
        degree = torch.zeros(x.shape[0]).scatter_add_(0, target, torch.ones_like(target, dtype=x.dtype))
        norm = degree.rsqrt()[source] * degree.rsqrt()[target]
        return torch.zeros(x.shape[0], 4).index_add_(0, target, self.layer(x)[source] * norm[:, None]).relu_()


@structure(floats(5, 6), EDGES, **GRAPH)
def graph_attention_with_softmax_over_edges(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    source, target = edges.unbind(0)
    scores = F.leaky_relu((x[source] * x[target]).sum(-1), 0.2)
    top = torch.full((x.shape[0],), -torch.inf).scatter_reduce_(0, target, scores, "amax")
    weights = (scores - top[target]).exp()
    total = torch.zeros(x.shape[0]).index_add_(0, target, weights)
    return torch.zeros_like(x).index_add_(0, target, x[source] * (weights / total[target])[:, None])


@structure(floats(5, 6), EDGES, **GRAPH)
def graph_pooled_by_maximum_and_mean(x: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, ...]:
    index = edges[1][:, None].expand(-1, 6)
    messages = x[edges[0]]
    best = torch.zeros_like(x).scatter_reduce(0, index, messages, "amax", include_self=False)
    mean = torch.zeros_like(x).scatter_reduce(0, index, messages, "mean", include_self=False)
    return best, mean, torch.bincount(edges[1], minlength=5)


@structure(floats(5, 6), EDGES, dynamic=({0: "nodes"}, None), other=(floats(8, 6), EDGES))
def sparse_adjacency_product(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    adjacency = torch.zeros(x.shape[0], x.shape[0])
    adjacency[edges[0], edges[1]] = 1.0
    return (adjacency / adjacency.sum(1, keepdim=True).clamp_min(1)) @ x


@structure(floats(2, 4, 6), dynamic=({0: "batch", 1: "time"},), other=(floats(3, 5, 6),))
class AdaptiveComputationTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step, self.halt = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left, y, steps = x.new_ones(x.shape[:2]), torch.zeros_like(x), x.new_zeros(x.shape[:2])
        for i in range(4):
            p = self.halt(x).sigmoid().squeeze(-1)
            p = torch.where(p > left, left, p) if i < 3 else left
            y += p[..., None] * x
            steps += (left > 0).float()
            left = left - p
            x = self.step(x).tanh()
        return y, steps


@structure(
    floats(3, 3, 4), ints(0, 2, 1), dynamic=({0: "batch"}, {0: "batch"}), other=(floats(5, 3, 4), ints(1, 1, 0, 2, 2))
)
def losses_of_a_detector(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    mean = scores.mean(-1)
    hot = F.one_hot(labels, 3).float()
    p = mean.sigmoid()
    focal = -((1 - torch.where(hot > 0, p, 1 - p)) ** 2 * F.logsigmoid(mean * (2 * hot - 1))).sum()
    smooth = F.smooth_l1_loss(scores[..., 0], hot, beta=0.5)
    return focal, smooth, F.cross_entropy(mean, labels, label_smoothing=0.1), F.nll_loss(mean.log_softmax(1), labels)


@structure(floats(1, 3, 12, 10), dynamic=({2: "height", 3: "width"},), other=(floats(1, 3, 9, 15),))
def image_letterboxed_and_normalized(x: torch.Tensor) -> torch.Tensor:
    canvas = torch.full((1, 3, 16, 16), 0.5)
    canvas[:, :, 2 : 2 + x.shape[2], : x.shape[3]] = x
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.2, 0.3])
    return F.avg_pool2d((canvas - mean[:, None, None]).div_(std[:, None, None]), 2)


@structure(floats(1, 3, 8, 8), dynamic=({0: "batch"},), other=(floats(2, 3, 8, 8),))
class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.head(x.mean((2, 3))).view(-1, 2, 3) * 0.1 + torch.eye(2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


@structure(floats(1, 2, 6, 6), floats(1, 2, 6, 6), dynamic=({2: "height", 3: "width"},) * 2,
           other=(floats(1, 2, 8, 7), floats(1, 2, 8, 7)))  # fmt: skip
def image_warped_by_a_flow(x: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).to(x.dtype) + flow[0]
    scale = torch.stack([torch.tensor(width - 1), torch.tensor(height - 1)])[:, None, None]
    grid = (2 * places / scale - 1).permute(1, 2, 0)[None]
    return F.grid_sample(x, grid, align_corners=True)


@structure(
    floats(1, 2, 5, 5), floats(1, 2, 5, 5), dynamic=({2: "height"},) * 2, other=(floats(1, 2, 7, 5), floats(1, 2, 7, 5))
)
def correlation_volume_of_two_images(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    padded = F.pad(b, (1, 1, 1, 1))
    shifts = [padded[:, :, i : i + a.shape[2], j : j + a.shape[3]] for i in range(3) for j in range(3)]
    return torch.stack([(a * shift).mean(1) for shift in shifts], 1)


@structure(floats(2, 6), buffers={"queue": floats(6, 8), "at": torch.zeros(1, dtype=torch.int64)},
           mutates={"queue": BUFFER, "at": BUFFER}, training=True)  # fmt: skip
class ContrastiveQueue(nn.Module):
    """MoCo's queue of keys, and an encoder that follows another by momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = F.normalize(self.query(x)), F.normalize(self.key(x))
        scores = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue], 1)
        self.queue.index_copy_(1, self.at + torch.arange(2), k.t())
        self.at.add_(2).remainder_(8)
        return F.cross_entropy(scores / 0.07, torch.zeros(2, dtype=torch.int64))


@structure(floats(3, 5), training=True, mutates={"target.weight": "PARAMETER_MUTATION"})
class TargetNetworkFollowingByMomentum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = nn.Linear(5, 4, bias=False), nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.target.weight.lerp_(self.online.weight, 0.01)
        return F.mse_loss(self.online(x), self.target(x))


@structure(
    floats(4, 5).sigmoid(),
    ints(3, 1, 4),
    dynamic=({0: "sources", 1: "targets"}, None),
    other=(floats(3, 6).sigmoid(), ints(0, 0, 2)),
)
def sinkhorn_normalization(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    log = x.log()
    for _ in range(5):
        log = log - log.logsumexp(1, keepdim=True)
        log = log - log.logsumexp(0, keepdim=True)
    return log.exp()[:, index]


@structure(floats(8, 3), floats(5, 3), dynamic=({0: "points"}, {0: "others"}), other=(floats(11, 3), floats(6, 3)))
def nearest_neighbours_and_chamfer_distance(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    distance = torch.cdist(a, b)
    near, places = distance.topk(2, largest=False)
    weights = 1 / (near + 1e-2)
    return (b[places] * (weights / weights.sum(1, keepdim=True))[..., None]).sum(1), distance.amin(1).mean()


@structure(floats(12, 3))
def farthest_points_sampled(points: torch.Tensor) -> torch.Tensor:
    chosen = torch.zeros(4, dtype=torch.int64)
    distance = torch.full((12,), 1e9)
    for i in range(1, 4):
        distance = torch.minimum(distance, (points - points[chosen[i - 1]]).square().sum(1))
        chosen[i] = distance.argmax()
    return points[chosen]


@structure(floats(2, 9), dynamic=({0: "batch"},), other=(floats(4, 9),))
def rotations_made_orthogonal_by_six_numbers(x: torch.Tensor) -> torch.Tensor:
    a, b = F.normalize(x[:, :3]), x[:, 3:6]
    b = F.normalize(b - (a * b).sum(1, keepdim=True) * a)
    return torch.stack([a, b, torch.linalg.cross(a, b)], 2)


@structure(ints(7, 300, 12, 5), dynamic=({0: "n"},), other=(ints(1, 2),))
class HashedFeaturesInABag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(16, 4, mode="mean")
        self.tables = nn.ModuleList(nn.Embedding(8, 4) for _ in range(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        pooled = self.bag(ids.remainder(16), torch.zeros(1, dtype=torch.int64))
        hashed = [table((ids * 31 + i) % 8).sum(0) for i, table in enumerate(self.tables)]
        return torch.cat([pooled[0], *hashed])


@structure(floats(2, 5, 6), dynamic=({0: "batch", 1: "time"},), other=(floats(3, 8, 6),))
class SelectiveStateSpace(nn.Module):
    """Mamba's selective scan, unrolled by a cumulative product in log space."""

    def __init__(self) -> None:
        super().__init__()
        self.rates, self.mix = nn.Parameter(floats(6, 3).abs()), nn.Linear(6, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step, b, c = self.mix(x).split([1, 3, 3], -1)
        step = F.softplus(step)
        decay = (-step[..., None] * self.rates).cumsum(1)
        inputs = (step * x)[..., None] * b[:, :, None]
        state = decay.exp() * (inputs * (-decay).exp()).cumsum(1)
        return (state * c[:, :, None]).sum(-1)
