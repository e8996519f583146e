"""Protecting a face, each scheme against the straightforward way: `python tests/bench_image_schemes.py`

The straightforward way is that of the official code: enlarge the image eight times, JPEG's colours, cut into blocks,
cosine transform, and only then choose channels (PartialFace, DuetFace, DCTDP), or project, shuffle, decode all 192
(null-space residue). Faces of 112 pixels, two threads; the ways take turns, the best turn counts."""
import math
import time
import torch, torch.nn.functional as F
from faceprivacy.image_schemes import DCTDP, DuetFace, NullResidue, PartialFace, coefficients, laplace
from faceprivacy.block_dct import dct_matrix, decoding_weights

THREADS, N = 2, 8
TO_YCC = torch.tensor([[.299, .587, .114], [-.168735892, -.331264108, .5], [.5, -.418687589, -.081312411]])
TO_RGB = torch.tensor([[1, 0, 1.402], [1, -.344136286, -.714136286], [1, 1.772, 0]])
D = dct_matrix().float()

def long_encode(x):
    "All 192 channels, by way of 896 x 896 pixels"
    b, _, h, w = x.shape
    large = F.interpolate(x*.5 + .5, (8*h, 8*w), mode='bilinear', align_corners=True)*255
    planes = torch.einsum('pc,bchw->bphw', TO_YCC, large)
    planes[:, 0] -= 128
    blocks = F.unfold(planes.flatten(0, 1)[:, None], 8, stride=8).view(b, 3, 8, 8, h*w)
    return torch.einsum('un,bpnml,vm->bpuvl', D, blocks, D).reshape(b, 192, h, w)

def long_decode(c):
    "Back by way of 896 x 896 pixels"
    b, _, h, w = c.shape
    blocks = torch.einsum('un,bpuvl,vm->bpnml', D, c.view(b, 3, 8, 8, h*w), D).reshape(3*b, 64, h*w)
    planes = F.fold(blocks, (8*h, 8*w), 8, stride=8).view(b, 3, 8*h, 8*w)
    image = torch.einsum('cp,bphw->bchw', TO_RGB, planes)/255 + 128/255
    return F.interpolate(image, (h, w), mode='bilinear', align_corners=True).clamp(0, 1)

def long_null(x, orders):
    c = long_encode(x)
    b, _, h, w = c.shape
    weights = torch.einsum('uh,vw->uvhw', decoding_weights(h), decoding_weights(w)).flatten(0, 1).float()
    planes = c.view(b, 3, 64, h, w)
    mean = (planes*weights).sum(2, keepdim=True)/weights.square().sum(0)
    r = (planes - weights*mean).flatten(1, 2)
    return long_decode(r.gather(1, orders[:, :, None, None].expand_as(r)))

def pick(x, frequencies):
    c = long_encode(x).unflatten(1, (3, 64))
    return torch.stack([y[:, k] for y, k in zip(c, frequencies.expand(len(x), -1))]).flatten(1, 2)

def main(turns=5):
    torch.set_num_threads(THREADS)
    x = torch.rand(N, 3, 112, 112, generator=torch.Generator().manual_seed(0))*2 - 1
    partial, duet, dctdp, null = PartialFace(), DuetFace(), DCTDP(), NullResidue()
    ranks, orders, seeds = partial.secrets(N), null.secrets(N), dctdp.secrets(N)
    shape = 189, 112, 112
    ways = {
        'partialface': (lambda: pick(x, partial.ranks[ranks[:, 0]]), lambda: partial.protect(x, secrets=ranks)),
        'duetface': (lambda: pick(x, duet.frequencies), lambda: duet.protect(x)),
        'dctdp, without noise': (lambda: pick(x, dctdp.frequencies), lambda: coefficients(x, dctdp.frequencies)),
        'null_residue': (lambda: long_null(x, orders), lambda: null.protect(x, secrets=orders))}
    for name, (naive, ours) in ways.items():
        print(f'{name:22} differs by at most {(naive() - ours()).abs().max():.1e}')
    ways['noise alone'] = (lambda: torch.distributions.Laplace(0., 1.).sample((N, *shape)), lambda: laplace(seeds, *shape))
    best = {}
    for _ in range(turns):
        for name, pair in ways.items():
            for which, f in enumerate(pair):
                begin = time.perf_counter()
                f()
                best[name, which] = min(best.get((name, which), math.inf), time.perf_counter() - begin)
    for name in ways:
        naive, ours = (1e3*best[name, k]/N for k in (0, 1))
        print(f'{name:22} {naive:7.2f} ms the long way, {ours:6.2f} ms ours, ratio {naive/ours:.1f}')
    print('(noise: theirs from torch\'s generator, ours from ChaCha20)')

if __name__ == '__main__': main()
