"""Smoothing a clip's motion as one tridiagonal system, against a Kalman smoother that walks through the frames.

    python tests/bench_driving.py

The walk is the scalar one in plain numpy for all coordinates at once, which is kinder than the matrix filter that the
official code calls: that inverts a matrix of coordinates for every frame."""
import time
import numpy as np, torch
from faceprivacy.driving import smooth

COORDINATES = 72  # nine of the rotation, 63 of the expression

def walk(y, r=3e-7, q=1e-5):
    z, p = [y[0]], [r/(1 + r)]
    for v in y[1:]:
        gain = (p[-1] + q)/(p[-1] + q + r)
        z, p = z + [z[-1] + gain*(v - z[-1])], p + [gain*r]
    for i in range(len(y) - 2, -1, -1): z[i] = z[i] + p[i]/(p[i] + q)*(z[i + 1] - z[i])
    return np.stack(z)

def matrices(y, r=3e-7, q=1e-5):
    "The same with covariance matrices, as a general filter has them"
    eye = np.eye(y.shape[1])
    z, p = [y[0]], [eye*r/(1 + r)]
    for v in y[1:]:
        ahead = p[-1] + q*eye
        gain = ahead @ np.linalg.inv(ahead + r*eye)
        z, p = z + [z[-1] + gain @ (v - z[-1])], p + [ahead - gain @ ahead]
    for i in range(len(y) - 2, -1, -1): z[i] = z[i] + p[i] @ np.linalg.inv(p[i] + q*eye) @ (z[i + 1] - z[i])
    return np.stack(z)

def best(f, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = f()
        times.append(time.perf_counter() - start)
    return min(times), found

def main():
    for n in 100, 1000:
        y = np.random.default_rng(0).standard_normal((n, COORDINATES)).cumsum(0)*.01
        ours, found = best(lambda: smooth(torch.from_numpy(y)).numpy())
        for name, f in (('walk', walk), ('walk with matrices', matrices)):
            t, want = best(lambda: f(y))
            print(f'{n} frames: one solve {ours*1e3:.2f} ms, {name} {t*1e3:.1f} ms, {t/ours:.0f} times slower, '
                  f'differ by {np.abs(found - want).max():.0e}')

if __name__ == '__main__': main()
