"""Seconds that the attacks take, batched over people: `python tests/bench_template_attacks.py [people]`"""
import sys, time

import torch
import torch.nn.functional as F

from faceprivacy.slerp import Slerp
from faceprivacy.template_attacks import (
    invert, invert_bits, invert_network, invert_polynomials, invert_rotations, nobody, polynomials, renewed)

torch.set_num_threads(2)
people, dim, g = int((sys.argv[1:] or [60])[0]), 128, torch.Generator().manual_seed(0)
draw = lambda *s: torch.randn(people, *s, generator=g)
z, prior = F.normalize(draw(dim), dim=1), nobody(dim)

def slerp(r, scheme=Slerp(dim=dim), grade='full'):
    held = [renewed(scheme, z, grade, g) for _ in range(r)]
    return lambda: invert(scheme, held, prior)

def biohash(r): return lambda A=draw(r*dim, dim), s=draw(r*dim) > 0: invert_bits(A, s, prior)

def mlp_hash(r, width=1024):
    layers = [[draw(dim, width)/dim**.5, draw(width, dim)/width**.5] for _ in range(r)]
    return lambda: invert_network(layers, draw(r*dim) > 0, prior)

def polyprotect(r, m=5, o=2):
    c, e = draw(r, m).mul(20).ceil().double() - .5, torch.rand(people, r, m, generator=g).argsort(-1).double() + 1
    p = -(-(dim - m)//(m - o)) + 1
    y = polynomials(z.double(), c, e, o, p)[0].view(people, r, p)
    return lambda: invert_polynomials(y, c, e, o, prior, g)

def ironmask(r):
    P = torch.linalg.qr(draw(r, dim, dim))[0]
    return lambda: invert_rotations(P, 16, prior, None, g)

for make in slerp, biohash, mlp_hash, polyprotect, ironmask:
    line = []
    for r in 1, 2, 4:
        attack = make(r)
        start = time.perf_counter(); attack()
        line.append(f'{time.perf_counter() - start:6.2f}')
    print(f'{make.__name__:12} {people} people, 1, 2, 4 records: {" ".join(line)} s')
