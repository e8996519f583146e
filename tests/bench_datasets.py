"""Reading faces: a .rec against folders and zips, labels at once against one by one, .bin against pickle."""
import pickle
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from faceprivacy.datasets import open_folder, open_rec, write_faces
from faceprivacy.formats import Records, encode, first_labels, frame, read_bin, unframe, write_bin

N = 4000
torch.set_num_threads(2)


def seconds(f, least=.5):
    "Best of three, each long enough to be measured"
    best = np.inf
    for _ in range(3):
        start, runs = time.perf_counter(), 0
        while time.perf_counter() - start < least: f(); runs += 1
        best = min(best, (time.perf_counter() - start)/runs)
    return best


def loop_frame(data):
    "Looking for the magic word four bytes at a time, as the official writer does"
    return any(data[i:i + 4] == b'\x0a\x23\xd7\xce' for i in range(0, len(data) - 3, 4))


def main():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (N, 14, 14, 3), dtype=np.uint8)
    pixels = [np.array(Image.fromarray(x).resize((112, 112), Image.Resampling.BICUBIC)) for x in small]
    person = np.arange(N)//4
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_faces(here/'faces.rec', [(pixels, person)], N, N//4)
        rec = open_rec(here/'faces.rec')
        jpegs = [rec.jpeg(i) for i in range(N)]
        with zipfile.ZipFile(here/'faces.zip', 'w') as z:
            for k, x in enumerate(jpegs):
                (here/'tree'/f'{person[k]}').mkdir(parents=True, exist_ok=True)
                (here/'tree'/f'{person[k]}'/f'{k}.jpg').write_bytes(x)
                z.writestr(f'{person[k]}/{k}.jpg', x)
        sources = {'.rec': rec, 'files': open_folder(here/'tree'), 'zip': open_folder(here/'faces.zip')}
        some = rng.permutation(N)[:1000]
        rate = {name: 1000/seconds(lambda: [s.jpeg(i) for i in some]) for name, s in sources.items()}
        for name, r in rate.items(): print(f'bytes from {name:6} {r:10,.0f} images/s  {r/rate["files"]:5.1f} x files')
        rate = {name: 256/seconds(lambda: s.images(some[:256])) for name, s in sources.items()}
        for name, r in rate.items(): print(f'decoded    {name:6} {r:10,.0f} images/s  {r/rate["files"]:5.1f} x files')
        rec.dtype = torch.uint8
        for workers in (0, 2):
            start = time.perf_counter()
            for _ in DataLoader(rec, 128, num_workers=workers): pass
            print(f'DataLoader, {workers} workers {N/(time.perf_counter() - start):8,.0f} images/s')

        records = Records(here/'faces.rec')
        rows = np.arange(1, N + 1)
        slow = seconds(lambda: [records.labels(k)[0] for k in rows])
        fast = seconds(lambda: first_labels(records, rows))
        print(f'labels     {N/fast:15,.0f} a second   {slow/fast:7.1f} x one by one')
        slow, fast = seconds(lambda: [loop_frame(x) for x in jpegs[:100]]), seconds(lambda: [frame(x) for x in jpegs[:100]])
        print(f'frame      {100/fast:15,.0f} records/s  {slow/fast:7.1f} x a loop over words')
        row = [frame(x) for x in jpegs[:1000]]
        print(f'unframe    {1000/seconds(lambda: [unframe(x, 0) for x in row]):15,.0f} records/s')
        write_bin(here/'a.bin', jpegs, [True]*(N//2))
        safe = seconds(lambda: read_bin(here/'a.bin'))
        unsafe = seconds(lambda: pickle.loads((here/'a.bin').read_bytes(), encoding='bytes'))
        print(f'.bin       {N/safe:15,.0f} images/s   {unsafe/safe:7.2f} x pickle.load, which runs anything')
        print(f'{len(encode(pixels[0])):,} bytes an image')


if __name__ == '__main__': main()
