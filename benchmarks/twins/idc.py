"""IDC the plain way: class after class with an optimiser step each, the network trained between two rounds."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.twins.augment import augment
from benchmarks.twins.matching import fresh_network, real_images
from distill.augment import Augmentation
from distill.contracts import Deadline
from distill.cutmix import draw_cutmix
from distill.method import METHODS
from distill.methods.idc import IDCConfig
from distill.problem import Problem

_CONVOLUTION = 4  # dimensions of the gradients that are matched


def idc(problem: Problem, config: IDCConfig, stop: Deadline) -> Tensor:
    """The stored images after IDC (Kim et al., 2022), squared distances of gradients, one decode factor."""
    images = METHODS.get("idc")(config, problem).initial_images().detach().requires_grad_(True)
    optimiser = torch.optim.SGD([images], lr=config.lr_img, momentum=config.momentum_img)
    everything = problem.normalisation.encode(real_images(problem))
    for iteration in range(config.iterations):
        if stop.requested():
            stop.check()
        with torch.no_grad():
            images.clamp_(0, 1)
        network = fresh_network(problem, config.model, iteration)
        inner = torch.optim.SGD(
            network.parameters(), lr=config.lr_net, momentum=config.momentum_net, weight_decay=config.wd_net
        )
        for match in range(config.inner_loop):
            _round(problem, config, network, images, optimiser, everything, (iteration, match))
            if match < config.inner_loop - 1:
                _train(problem, config, network, inner, (iteration, match))
    return images.detach()


def _round(problem, config, network, images, optimiser, everything, keys) -> None:
    augmentation = Augmentation(config.aug_match, dispatcher=config.dispatcher)
    classes, weights = problem.num_classes, list(network.parameters())
    draw = augmentation.draw_classes(problem.stream("augment", *keys), classes, problem.shape[-1])
    rows = problem.draw_rows(config.batch_real, "real", *keys)
    shown = problem.ipc * config.factor**2
    order = torch.rand((classes, shown), generator=problem.stream("used", *keys), dtype=torch.float64).argsort(1)
    for c in range(classes):
        decoded = _decode(images[c * problem.ipc : (c + 1) * problem.ipc], config.factor)
        if shown > config.batch_syn_max:
            decoded = decoded[order[c, : config.batch_syn_max].to(images.device)]
        synthetic = augment(problem.normalisation.encode(decoded), draw, c, augmentation.strength)
        real = augment(everything[rows[c]], draw, c, augmentation.strength)
        labels = torch.full((len(real),), c, dtype=torch.int64, device=images.device)
        wanted = torch.autograd.grad(F.cross_entropy(network(real), labels), weights)
        label = torch.full((len(synthetic),), c, dtype=torch.int64, device=images.device)
        found = torch.autograd.grad(F.cross_entropy(network(synthetic), label), weights, create_graph=True)
        pairs = zip(found, (g.detach() for g in wanted), strict=True)
        loss = sum((a - b).square().sum() for a, b in pairs if a.ndim == _CONVOLUTION)
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        optimiser.step()


def _decode(images: Tensor, factor: int) -> Tensor:
    """Tiles of [n, ch, H, W], row by row, each enlarged to the full size: [factor²·n, ch, H, W]."""
    height, width = images.shape[2:]
    images = F.pad(images, (0, -width % factor, 0, -height % factor), value=0.5)
    tall, wide = images.shape[2] // factor, images.shape[3] // factor
    tiles = [
        images[:, :, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide] for i in range(factor) for j in range(factor)
    ]
    return torch.cat([F.interpolate(t, size=(height, width), mode="bilinear", align_corners=False) for t in tiles])


def _train(problem, config, network, optimiser, keys) -> None:
    augmentation = Augmentation(config.aug_net, dispatcher=config.dispatcher)
    batches = problem.shuffled(config.batch_train, "network order", *keys)
    for number, (rows, y) in enumerate(islice(batches, -(-config.n_data // config.batch_train))):
        x = problem.normalisation.encode(problem.images_at(rows))
        generator = problem.stream("network augment", number, *keys)
        x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
        mix = draw_cutmix(
            problem.stream("cutmix", number, *keys), len(x), tuple(x.shape[-2:]), config.mix_p, config.beta
        )
        top, bottom, left, right = mix.boxes[0].tolist()
        share, other = float(mix.ratios[0]), mix.permutation.to(x.device)
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[other][:, :, top:bottom, left:right]
        optimiser.zero_grad()
        logits = network(mixed)
        loss = F.cross_entropy(logits, y) * share + F.cross_entropy(logits, y[other]) * (1 - share)
        loss.backward()
        optimiser.step()
