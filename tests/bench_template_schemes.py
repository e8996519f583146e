"""Microseconds to protect, to compare and to search, for every scheme; SlerpFace's search at 10,000 and 100,000
identities against the official loop over pairs: python tests/bench_template_schemes.py"""
import numpy as np
import torch
import torch.nn.functional as F

from bench_slerp import best, one_pair
from faceprivacy.slerp import Slerp
from faceprivacy.template_schemes import SCHEMES, record_bytes

DIM, N, QUERIES, PAIRS = 128, 1000, 16, 1000


def one_scheme(name, s, generator):
    z = F.normalize(torch.randn(N, DIM, generator=generator), dim=1)
    keys = s.keys(N, generator)
    record = s.protect(z, keys)
    times = [best(f, 3)[0]*1e6/n for f, n in ((lambda: s.protect(z, keys), N), (lambda: s.compare(record, z, keys), N),
                                              (lambda: s.identify(z[:QUERIES], record, keys), N*QUERIES))]
    print(f'{name:16s} {times[0]:10.1f} {times[1]:10.1f} {times[2]:10.3f} {record_bytes(record):10.0f} {s.key_bytes:6d}')


def slerp_search(n, generator, block=5000):
    "A gallery of n, searched block by block, against the official loop"
    s = Slerp.official()
    seconds, loop = 0, None
    for start in range(0, n, block):
        people, maps = torch.randn(block, 49, 16, generator=generator), torch.full((block, 49), 1/49)
        keys = s.keys(block, generator)
        record = s.protect(people, keys, maps)
        gallery, probes = s.gallery(record, keys), torch.randn(256, 49, 16, generator=generator)
        seconds += best(lambda: s.search(probes, gallery, maps[:256]), 2)[0]
        if loop is None:
            rows = [v.double().numpy() for v in (record.rows[:PAIRS], keys.direction[:PAIRS], probes[0], maps[0])]
            loop = best(lambda: [one_pair(p, k, *rows[2:]) for p, k in zip(*rows[:2])], 3)[0]/PAIRS
    print(f'SlerpFace, {n:,} identities: {256*n/seconds:,.0f} pairs/s, {loop*256*n/seconds:.0f} times the loop over pairs')


if __name__ == '__main__':
    torch.set_num_threads(2)
    g = torch.Generator().manual_seed(0)
    print(f'{"us, 2 threads":16s} {"protect":>10s} {"compare":>10s} {"1:N pair":>10s} {"bytes":>10s} {"key":>6s}')
    for name, make in SCHEMES.items(): one_scheme(name, make(DIM), g)
    for n in 10_000, 100_000: slerp_search(n, g)
