"""Images a second of the drawn people, in batches and one by one: python tests/bench_people.py"""
import time

import torch

from faceprivacy.people import render, sample_people, sample_shots


def rate(call, n, repeats=3):
    "Images a second, the best of a few runs"
    call()
    def once():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    return n/min(once() for _ in range(repeats))


if __name__ == '__main__':
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size, framing, n in ((112, 'aligned', 32), (256, 'portrait', 8)):
            g = torch.Generator().manual_seed(0)
            people, shots = sample_people(n, g), sample_shots(n, g)
            with torch.no_grad():
                many = rate(lambda: render(people, shots, size, framing), n)
                single = rate(lambda: [render(people[i], shots[i], size, framing) for i in range(n)], n)
            print(f'{threads} threads, {size} px {framing}: {many:.1f} images/s in batches, {single:.1f} one by one, '
                  f'ratio {many/single:.2f}')
