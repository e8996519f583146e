"""Putting a crop back into a photograph, against blending the whole photograph as the official code does.

    python tests/bench_portrait_crop.py

One frame of 512 pixels into a picture of 1280 x 960, mask and map the same for all frames. Two threads."""
import time
import cv2, numpy as np
from faceprivacy.portrait_crop import Paste, Square, feather, inverse, matrix

FRAMES, THREADS = 40, 2

def whole(picture, crop, m):
    "Mask and crop warped over the whole picture, for every frame"
    size = picture.shape[1::-1]
    mask = np.repeat(feather()[..., None], 3, 2)
    mask, there = (cv2.warpAffine(v, inverse(m), size, flags=cv2.INTER_LINEAR) for v in (mask, crop))
    return np.clip(mask*there + (1 - mask)*picture, 0, 255).astype(np.uint8)

def seconds(f, frames):
    start = time.perf_counter()
    for x in frames: found = f(x)
    return (time.perf_counter() - start)/len(frames), found

def main():
    cv2.setNumThreads(THREADS)
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (960, 1280, 3), dtype=np.uint8), (0, 0), 8)
    frames = [np.roll(cv2.resize(picture, (512, 512)), i, 0) for i in range(FRAMES)]
    for side in 300, 600, 900:
        m = matrix(Square((640., 480.), float(side), .2))
        start = time.perf_counter()
        paste = Paste(picture, m)
        prepared = time.perf_counter() - start
        slow, want = seconds(lambda x: whole(picture, x, m), frames)
        fast, found = seconds(paste, frames)
        print(f'square of {side}: whole picture {slow*1e3:.1f} ms a frame, prepared part {fast*1e3:.1f} ms '
              f'({slow/fast:.1f} times faster; {prepared*1e3:.0f} ms once), '
              f'largest difference {np.abs(found - want.astype(float)).max():.0f} of 255')

if __name__ == '__main__': main()
