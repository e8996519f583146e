import json
from pathlib import Path
import numpy as np, pytest, torch
from faceprivacy.recognition import backbone
from golden_rule import assert_golden, golden_input, golden_state

GOLDEN = Path(__file__).parent/'golden'

@pytest.mark.parametrize('name,module', [('ir18', 'ir18'), ('ir50', 'slerpface_ir50')])
def test_networks_equal_the_official_ones(name, module):
    golden, net = np.load(GOLDEN/'tface_networks.npz'), backbone(name).eval()
    keys = json.loads((GOLDEN/'tface_state_dict.json').read_text())[module]
    keys = {k: v for k, v in keys.items() if not k.startswith('group_')}  # SlerpFace's own heads
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == keys
    net.load_state_dict(golden_state(module, net.state_dict()))
    face = (golden_input('input.face', (2, 3, 112, 112), 'random')*2 - 1)
    with torch.inference_mode(): out = net(face)
    print(assert_golden(out, golden, 'ir18.out' if name == 'ir18' else f'{module}.vector'))
