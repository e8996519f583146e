"""Make data/networks, what the default profile trained, and data/people, a small packed set of synthetic people with
their templates."""
import shutil

from faceprivacy.core import load_tensors, path, save_tensors, seed_everything
from faceprivacy.datasets import pack_people
from faceprivacy.recognition import embed, open_recogniser

seed_everything(0)
place = path('data/people')
test = pack_people(place).test
weights = path('data/networks/small.safetensors')
weights.parent.mkdir(exist_ok=True)
shutil.copy(path('results/default/03_recognition/weights/small.safetensors'), weights)
model = open_recogniser('small', weights)
save_tensors(place/'templates.safetensors', z=embed(model, test), z_plain=embed(model, test, flip=False),
             person=test.person, group=test.group, **vars(test.pairs))

# What 30_inversion trained, for a few victims and in half precision: 31_adaptive_inversion opens with it.
source, packed = path('results/default/30_inversion/weights'), path('data/networks/inversion')
VICTIMS, KNOWN = 24, 1000
packed.mkdir(exist_ok=True)
shutil.copy(source/'decoder.safetensors', packed)
judge = load_tensors(source/'judge.safetensors')
save_tensors(packed/'judge.safetensors', **{k: v.half() if v.is_floating_point() else v for k, v in judge.items()})
held = load_tensors(source/'victims.safetensors')
save_tensors(packed/'victims.safetensors', **{k: v[:KNOWN if k == 'known_z' else VICTIMS].clone() if v.ndim else v
                                              for k, v in held.items()})
