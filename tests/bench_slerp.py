"""Search through 10,000 identities, each with its own key, against the official way of comparing.

    python tests/bench_slerp.py

The official way is a numpy loop over pairs in float64. Its records come from a pickled file as arrays of Python
objects, which slows the comparison; the loop is timed as it is and, kinder, with plain arrays. Two threads."""
import time
import numpy as np, torch
from faceprivacy.slerp import Slerp

N, QUERIES, PAIRS, THREADS = 10_000, 256, 2_000, 2

def group_slerp(t, k, alpha):
    t, k = t/np.linalg.norm(t, axis=1, keepdims=True), k/np.linalg.norm(k, axis=1, keepdims=True)
    theta = np.arccos(np.clip(np.sum(t*k, axis=1, keepdims=True), -1, 1))
    return (np.sin((1 - alpha)*theta)*t + np.sin(alpha*theta)*k)/np.sin(theta)

def one_pair(rows, key, query, weight):
    "gen_sim.py, one gallery record against one query"
    q = group_slerp(query, key.astype(float), .9 - weight[:, None])
    q[rows == 0] = 0
    q = q/np.linalg.norm(q, axis=1, keepdims=True)
    return np.dot(q.flatten(), rows.flatten())

def best(f, repeats=5):
    "Shortest of some runs in seconds, and what the last one gave"
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = f()
        times.append(time.perf_counter() - start)
    return min(times), found

def main():
    torch.set_num_threads(THREADS)
    scheme, generator = Slerp.official(), torch.Generator().manual_seed(0)
    people, probes = (torch.randn(n, 49, 16, generator=generator) for n in (N, QUERIES))
    maps, probe_maps = (torch.randn(n, 49, generator=generator).mul(.3).softmax(1) for n in (N, QUERIES))
    start = time.perf_counter()
    keys = scheme.keys(N, generator)
    keyed = time.perf_counter()
    record = scheme.protect(people, keys, maps)
    enrolled = time.perf_counter()
    gallery = scheme.gallery(record, keys)
    print(f'{N:,} identities, {QUERIES} queries, {THREADS} threads')
    print(f'keys {(keyed - start)/N*1e6:.0f} us, enrolment {(enrolled - keyed)/N*1e6:.0f} us, '
          f'layout {(time.perf_counter() - enrolled)/N*1e6:.0f} us per identity')

    a = [v.double().numpy() for v in (record.rows[:PAIRS], keys.direction[:PAIRS], probes[0], probe_maps[0])]
    stored = [np.array([p, k], dtype=object) for p, k in zip(*a[:2])]  # as numpy gives the official file back
    loops = {'official loop, its object arrays': lambda: [one_pair(*s, *a[2:]) for s in stored],
             'official loop, float arrays': lambda: [one_pair(p, k, *a[2:]) for p, k in zip(*a[:2])]}
    loops = {name: best(f, 3) for name, f in loops.items()}
    rate = {name: PAIRS/t for name, (t, _) in loops.items()}
    for name, r in rate.items(): print(f'{name:34s} {r:12,.0f} pairs/s')

    t, _ = best(lambda: scheme.compare(record, probes[:1].expand(N, -1, -1), keys, probe_maps[:1].expand(N, -1)), 3)
    show = lambda name, r: print(f'{name:34s} {r:12,.0f} pairs/s, ' + ' and '.join(f'{r/v:.0f}' for v in rate.values())
                                 + ' times the loops')
    show('compare, batched over records', N/t)
    for q in 1, 16, QUERIES:
        t, found = best(lambda: scheme.search(probes[:q], gallery, probe_maps[:q]))
        show(f'search, {q} queries', N*q/t)
    for name, (_, want) in loops.items():
        print(f'{name}: scores differ by at most {np.abs(found[0, :PAIRS].numpy() - np.float64(want)).max():.1e}')
    size = lambda *v: sum(x.numel()*x.element_size() for x in v)/N
    print(f'memory per identity: record {size(record.rows):,.0f} bytes, keys {size(keys.direction, keys.order):,.0f} '
          f'(32 as a seed), search layout {size(gallery.products, gallery.stored):,.0f}')

if __name__ == '__main__': main()
