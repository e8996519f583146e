"""Make data/networks, the default profile's recogniser, and data/people, a small packed set of synthetic people with
their templates."""
import shutil

from faceprivacy.core import path, save_tensors, seed_everything
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
