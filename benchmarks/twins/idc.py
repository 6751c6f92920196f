"""IDC the plain way: class after class with an optimiser step each, the network trained between two rounds."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.twins.augment import augment
from benchmarks.twins.matching import PlainRun, asked, class_loss
from distill.augment import Augmentation
from distill.contracts import Deadline
from distill.cutmix import draw_cutmix
from distill.methods.idc import IDCConfig
from distill.problem import Problem

_CONVOLUTION = 4  # dimensions of the gradients that are matched


def idc(problem: Problem, config: IDCConfig, stop: Deadline) -> Tensor:
    """The stored images after IDC (Kim et al., 2022), squared distances of gradients, one decode factor."""
    run = PlainRun("idc", problem, config)
    real = problem.normalisation.encode(run.real)
    for iteration in asked(stop, config.iterations):
        with torch.no_grad():
            run.images.clamp_(0, 1)
        network = run.network(iteration)
        inner = run.inner(network)
        for match in range(config.inner_loop):
            _round(run, network, real, (iteration, match))
            if match < config.inner_loop - 1:
                _train(run, network, inner, (iteration, match))
    return run.images.detach()


def _round(run: PlainRun, network: nn.Module, everything: Tensor, keys: tuple[int, int]) -> None:
    problem, config = run.problem, run.config
    augmentation = Augmentation(config.aug_match, dispatcher=config.dispatcher)
    classes, weights = problem.num_classes, list(network.parameters())
    draw = augmentation.draw_classes(problem.stream("augment", *keys), classes, problem.shape[-1])
    rows = problem.draw_rows(config.batch_real, "real", *keys)
    shown = problem.ipc * config.factor**2
    order = torch.rand((classes, shown), generator=problem.stream("used", *keys), dtype=torch.float64).argsort(1)
    for c in range(classes):
        decoded = _decode(run.images[c * problem.ipc : (c + 1) * problem.ipc], config.factor)
        if shown > config.batch_syn_max:
            decoded = decoded[order[c, : config.batch_syn_max].to(run.images.device)]
        synthetic = augment(problem.normalisation.encode(decoded), draw, c, augmentation.strength)
        real = augment(everything[rows[c]], draw, c, augmentation.strength)
        wanted = torch.autograd.grad(class_loss(network, real, c), weights)
        found = torch.autograd.grad(class_loss(network, synthetic, c), weights, create_graph=True)
        pairs = zip(found, (g.detach() for g in wanted), strict=True)
        loss = sum(((a - b).square().sum() for a, b in pairs if a.ndim == _CONVOLUTION), start=run.zero())
        run.optimiser.zero_grad(set_to_none=False)
        loss.backward()
        run.optimiser.step()


def _decode(images: Tensor, factor: int) -> Tensor:
    """Tiles of [n, ch, H, W], row by row, each enlarged to the full size: [factor²·n, ch, H, W]."""
    height, width = images.shape[2:]
    images = F.pad(images, (0, -width % factor, 0, -height % factor), value=0.5)
    tall, wide = images.shape[2] // factor, images.shape[3] // factor
    tiles = [
        images[:, :, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide] for i in range(factor) for j in range(factor)
    ]
    return torch.cat([F.interpolate(t, size=(height, width), mode="bilinear", align_corners=False) for t in tiles])


def _train(run: PlainRun, network: nn.Module, optimiser: torch.optim.SGD, keys: tuple[int, int]) -> None:
    problem, config = run.problem, run.config
    augmentation = Augmentation(config.aug_net, dispatcher=config.dispatcher)
    batches = problem.shuffled(config.batch_train, "network order", *keys)
    for number, (rows, y) in enumerate(islice(batches, -(-config.n_data // config.batch_train))):
        x = problem.normalisation.encode(problem.images_at(rows))
        generator = problem.stream("network augment", number, *keys)
        x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
        size = (x.shape[-2], x.shape[-1])
        mix = draw_cutmix(problem.stream("cutmix", number, *keys), len(x), size, config.mix_p, config.beta)
        top, bottom, left, right = mix.boxes[0].tolist()
        share, other = float(mix.ratios[0]), mix.permutation.to(x.device)
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[other][:, :, top:bottom, left:right]
        optimiser.zero_grad()
        logits = network(mixed)
        loss = F.cross_entropy(logits, y) * share + F.cross_entropy(logits, y[other]) * (1 - share)
        loss.backward()
        optimiser.step()
