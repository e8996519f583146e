"""The weights and inputs behind the golden files: one rule fills every network (see tests/golden).

A golden file holds outputs of the papers' official networks, made once. Nobody has to keep their weights:
each entry of a state dict is drawn from a generator seeded by its name, so a test draws the same again.
"""
import zlib
from functools import lru_cache
from math import prod
import numpy as np, torch

def rng(tag: str) -> np.random.Generator:
    "The generator that belongs to a name"
    return np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode())))

@lru_cache(maxsize=None)
def _entry(tag, shape, gain):
    key, normal = tag, lambda: rng(tag).standard_normal(shape)
    if key.endswith('num_batches_tracked'): return torch.zeros(shape, dtype=torch.int64)
    if key.endswith('running_mean'): value = .1*normal()
    elif key.endswith('running_var'): value = .5 + rng(tag).random(shape)
    elif len(shape) == 4 and key.endswith(('gamma', 'beta')): value = .1*normal()
    elif len(shape) >= 2: value = gain*normal()/np.sqrt(prod(shape[1:]))
    elif len(shape) == 1 and key.endswith('weight'): value = 1 + .1*normal()
    else: value = .05*normal()
    return torch.from_numpy(np.asarray(value, dtype=np.float32))

def golden_state(module_name: str, state_dict, gain: float = .3, buffers=None) -> dict:
    """The golden weights for every entry of `state_dict` (its values give only shapes).

    `gain` is .3 for the TFace networks, 1 for LivePortrait's. `buffers` is the opened golden file, read for
    the spectral-norm vectors `weight_u` and `weight_v`, which it stores. Entries are shared and cached: copy
    before changing one in place (`load_state_dict` copies).
    """
    state = {}
    for key, value in state_dict.items():
        if key.endswith(('weight_u', 'weight_v')):
            state[key] = torch.from_numpy(np.asarray(buffers[f'buffer.{module_name}.{key}']))
        else: state[key] = _entry(f'{module_name}.{key}', tuple(value.shape), gain)
    return state

def golden_input(tag: str, shape, kind: str = 'standard_normal') -> torch.Tensor:
    "float32 draws of `rng(tag)`: kind is `standard_normal` or `random`"
    return torch.from_numpy(getattr(rng(tag), kind)(shape)).float()

def assert_golden(out: torch.Tensor, golden, name: str, tolerance: float = 1e-4):
    "Shape, and every stored sample within `tolerance` times the output's standard deviation"
    assert tuple(out.shape) == tuple(golden[f'{name}.shape']), f'{name}: shape {tuple(out.shape)}'
    samples = out.detach().flatten()[::int(golden[f'{name}.step'])].double().numpy()
    worst = np.abs(samples - golden[f'{name}.samples']).max()/float(golden[f'{name}.std'])
    assert worst <= tolerance, f'{name}: off by {worst:.2e} of its standard deviation'
    return worst
