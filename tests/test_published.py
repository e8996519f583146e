"""The published numbers in data/published: well-formed, attributed, and consistent where arithmetic can tell."""
import csv
from collections import defaultdict

import pytest

from faceprivacy.core import path

FOLDER = path('data/published')
STATUS = {'paper', 'official_readme', 'second_hand', 'derived'}
MATED = 4000                                  # mated comparisons of FRCSyn's BUPT list, all of task 1
FNMR = 'fnmr_at_fmr_1pc_percent'
FIVE = ['LFW', 'CFP-FP', 'CPLFW', 'AgeDB-30', 'CALFW']

# name of the file: (columns of the key, columns of values); then come `source` and `status`
KEYS = {
    'slerpface_recognition': ('system benchmark', 'accuracy_percent accuracy_sd_percent'),
    'slerpface_inversion': ('system attack metric', 'value_percent'),
    'slerpface_settings': ('parameter', 'value'),
    'fem_attack_success': ('target target_kind attack verifier', 'attack_success_percent'),
    'fem_partial_embedding': ('attack embedding_leaked_percent', 'attack_success_percent'),
    'polyprotect_accuracy': ('extractor dataset scenario overlap', 'tmr_at_fmr_0p1_percent'),
    'polyprotect_inversion': ('dataset overlap fmr_percent', 'inversion_success_percent'),
    'polyprotect_unlinkability': ('dataset keys', 'd_sys_low d_sys_high'),
    'ironmask_accuracy': ('extractor', 'tar_percent far_percent'),
    'minusface_table1': ('method venue protected benchmark metric', 'value_percent'),
    'minusface_table2': ('trained_on benchmark', 'accuracy_percent'),
    'minusface_table3': ('method', 'relative_size'),
    'minusface_table4': ('loss system benchmark', 'accuracy_percent'),
    'minusface_table5': ('variant benchmark', 'accuracy_percent'),
    'minusface_figure6': ('method', 'ssim psnr_db'),
    'minusface_latency': ('method device', 'latency_ms'),
    'minusface_settings': ('origin parameter', 'value'),
    'partialface_table1': ('method protected benchmark metric', 'value_percent'),
    'partialface_table2': ('method benchmark', 'tpr_at_fpr_1e_4_percent'),
    'partialface_table3': ('method', 'ssim psnr_db verification_accuracy_percent'),
    'partialface_table4': ('augmentation subsets permutations benchmark', 'accuracy_percent'),
    'dctdp_recognition': ('method benchmark metric', 'value_percent'),
    'dctdp_recovery': ('benchmark', 'psnr_db similarity'),
    'fracface_table1_minusface': ('benchmark metric', 'value_percent'),
    'fracface_table2_minusface': ('attack benchmark metric', 'value'),
    'facelinkgen_minusface': ('experiment test_set metric', 'value note'),
    'facelinkgen_repository': ('target attack test_set metric', 'value_fraction'),
    'map2v_scores': ('target validated_by score', 'score_percent'),
    'ldp_slicing_recognition': ('method budget benchmark', 'accuracy_percent'),
    'liveportrait_table1': ('method', 'quality_stars stitching eye_retargeting lip_retargeting'),
    'liveportrait_table2': ('dataset method', 'psnr_db ssim lpips l1 csim gaze_mae_degrees'),
    'liveportrait_table3': ('dataset method', 'fid csim aed apd gaze_mae_degrees'),
    'liveportrait_speed': ('module', 'parameters_million size_mb time_ms'),
    'liveportrait_settings': ('parameter', 'value unit'),
    'liveportrait_remeasured': ('measured_by test_set metric', 'value'),
    'frcsyn_cvpr2024_task1': ('sub_task rank team', f'to_percent avg_percent sd_percent {FNMR} auc_percent gap_to_real_percent note'),
    'frcsyn_cvpr2024_task2': ('sub_task rank team', f'avg_percent {FNMR} auc_percent gap_to_real_percent'),
    'frcsyn_wacv2024_task1': ('sub_task rank team', f'to_percent avg_percent sd_percent {FNMR} gap_to_real_percent'),
    'frcsyn_wacv2024_task2': ('sub_task rank team', f'avg_percent {FNMR} gap_to_real_percent'),
    'frcsyn_baselines': ('edition sub_task team', 'real_avg_percent'),
    'frcsyn_sub_tasks': ('edition sub_task', 'goal synthetic_images real_data'),
    'synthetic_training': ('training_set real images_million recogniser benchmark', 'accuracy_percent'),
    'dcface_table4': ('images_million', 'mean_accuracy_percent gap_to_real_percent'),
    'dcface_ablation': ('factor setting', 'mean_accuracy_percent'),
    'dcface_quality': ('training_set', 'uniqueness consistency diversity'),
    'digiface_balance': ('identities_with_many_images images_each identities_with_few_images few_images_each',
                         'mean_accuracy_percent'),
}
WORDS = 'unit note stitching eye_retargeting lip_retargeting goal synthetic_images real_data'.split()
MAY_BE_EMPTY = {'note', 'accuracy_sd_percent'}
FRACTIONS = 'ssim lpips l1 csim aed apd value_fraction uniqueness consistency diversity similarity d_sys_low d_sys_high'.split()


def rows(name):
    "The rows of one file, each a dictionary of strings"
    with open(FOLDER/f'{name}.csv', encoding='utf-8', newline='') as f: return list(csv.DictReader(f))


def limits(column):
    "The range a column of numbers keeps to"
    if column == 'gap_to_real_percent': return -100, 100
    if column.endswith('_percent'): return 0, 100
    if column in FRACTIONS: return 0, 1
    if column == 'psnr_db': return 5, 60
    if column == 'gaze_mae_degrees': return 0, 180
    if column == 'quality_stars': return 1, 5
    return 0, 1e9


def test_every_file_is_known_and_attributed():
    there = {f.stem for f in FOLDER.glob('*.csv')} - {'sources'}
    sources = rows('sources')
    assert list(sources[0]) == 'file paper table source note status'.split()
    assert all(all(r.values()) for r in sources)
    listed = [r['file'].removesuffix('.csv') for r in sources if r['file'] != 'none']
    assert there == set(KEYS) == set(listed) and len(listed) == len(set(listed))
    assert len({(r['file'], r['paper'], r['table']) for r in sources}) == len(sources)
    for r in sources:
        if r['file'] == 'none': assert r['status'] == 'not_available'
        else: assert set(r['status'].split('+')) == {s['status'] for s in rows(r['file'].removesuffix('.csv'))}


def test_the_folder_stays_small_and_plain():
    files = list(FOLDER.glob('*.csv'))
    assert sum(f.stat().st_size for f in files) < 200_000
    for f in files:
        data = f.read_bytes()
        assert b'\r' not in data and data.endswith(b'\n') and not data.startswith(b'\xef\xbb\xbf')
        assert data.decode('utf-8').replace('\n', '').isprintable()


@pytest.mark.parametrize('name', sorted(KEYS))
def test_a_file_has_its_columns_keys_and_ranges(name):
    key, values = (part.split() for part in KEYS[name])
    table = rows(name)
    assert table and all(list(r) == [*key, *values, 'source', 'status'] for r in table)
    assert len({tuple(r[k] for k in key) for r in table}) == len(table)
    for r in table:
        assert r['status'] in STATUS
        assert all(v == v.strip() and (v or k in MAY_BE_EMPTY) for k, v in r.items())
        for column in values:
            if column in WORDS or not r[column]: continue
            low, high = limits(column)
            assert low <= float(r[column]) <= high, (name, r)


def test_values_named_by_a_metric_keep_its_range():
    for r in rows('fracface_table2_minusface'):
        assert float(r['value']) < 1 or r['metric'] == 'psnr_db', r
    for r in rows('facelinkgen_minusface'):
        assert float(r['value']) < 1 or r['metric'] == 'age_mae_years', r


# ------------------------------------------------------------------ FRCSyn
def test_frcsyn_trade_off_is_mean_less_deviation():
    "On all 18 rows of the second edition and the 11 of the first, within the rounding of three printed numbers"
    for name, n in (('frcsyn_cvpr2024_task1', 18), ('frcsyn_wacv2024_task1', 11)):
        table = rows(name)
        assert len(table) == n
        for r in table: assert abs(float(r['avg_percent']) - float(r['sd_percent']) - float(r['to_percent'])) < .0151, r


def test_frcsyn_fnmr_counts_whole_comparisons():
    "A share of 4,000 mated comparisons, printed to .01 percent, is a multiple of .025 percent"
    for name in ('frcsyn_cvpr2024_task1', 'frcsyn_wacv2024_task1'):
        for r in rows(name):
            fnmr = float(r[FNMR])
            assert abs(100*round(fnmr*MATED/100)/MATED - fnmr) < .0051, r
    first = rows('frcsyn_cvpr2024_task1')[:3]
    assert [round(float(r[FNMR])*MATED/100) for r in first] == [127, 455, 429]


@pytest.mark.parametrize('name', [n for n in KEYS if '2024_task' in n])
def test_frcsyn_places_follow_the_ranking_number(name):
    by_task = defaultdict(list)
    for r in rows(name): by_task[r['sub_task']].append(r)
    column = 'to_percent' if name.endswith('task1') else 'avg_percent'
    for table in by_task.values():
        assert [r['rank'] for r in table] == [str(k + 1) for k in range(len(table))]
        scores = [float(r[column]) for r in table]
        assert scores == sorted(scores, reverse=True)


def test_frcsyn_baselines_follow_from_mean_and_gap():
    official = {}
    for edition in ('CVPR 2024', 'WACV 2024'):
        for task in ('task1', 'task2'):
            name = f"frcsyn_{edition.replace(' ', '').lower()}_{task}"
            for r in rows(name): official[edition, r['sub_task'], r['team']] = r
    table = rows('frcsyn_baselines')
    assert {(r['edition'], r['sub_task'], r['team']) for r in table} == set(official)
    for r in table:
        o = official[r['edition'], r['sub_task'], r['team']]
        real = float(o['avg_percent'])*(1 + float(o['gap_to_real_percent'])/100)
        assert abs(real - float(r['real_avg_percent'])) < .0051


def test_frcsyn_gap_is_relative_to_the_synthetic_result():
    "A team's one baseline, recovered from two sub-tasks, agrees under (real - synthetic) / synthetic, not over real"
    found = defaultdict(dict)
    for r in rows('frcsyn_wacv2024_task1'):
        found[r['team']][r['sub_task']] = float(r['avg_percent']), float(r['gap_to_real_percent'])/100
    for team in ('BOVIFOCR-UFPR', 'MeVer Lab'):
        (a, g), (b, h) = found[team]['1.1'], found[team]['1.2']
        assert abs(a*(1 + g) - b*(1 + h)) < .02 < .1 < abs(a/(1 - g) - b/(1 - h))


# ------------------------------------------------------------------ training on synthetic faces
def test_dcface_gap_is_recomputed():
    real = next(float(r['accuracy_percent']) for r in rows('synthetic_training')
                if r['training_set'] == 'CASIA-WebFace' and r['benchmark'] == 'mean' and 'Table 4' in r['source'])
    means = {r['images_million']: r['accuracy_percent'] for r in rows('synthetic_training')
             if r['training_set'] == 'DCFace' and r['benchmark'] == 'mean' and 'Table 4' in r['source']}
    table = rows('dcface_table4')
    assert {r['images_million']: r['mean_accuracy_percent'] for r in table} == means and real == 94.62
    for r in table:
        mean, gap = float(r['mean_accuracy_percent']), float(r['gap_to_real_percent'])
        assert abs(100*(real - mean)/mean - gap) < .0051
        assert abs(100*(real - mean)/real - gap) > .1


def test_means_are_those_of_the_five_benchmarks():
    sets = defaultdict(dict)
    for r in rows('synthetic_training'):
        sets[r['training_set'], r['images_million'], r['recogniser'], r['source']][r['benchmark']] = float(r['accuracy_percent'])
    whole = [s for s in sets.values() if len(s) > 1]
    assert len(whole) == 30
    for s in whole: assert abs(sum(s[b] for b in FIVE)/5 - s['mean']) < .0101, s


def test_digiface_mixes_hold_500000_images():
    for r in rows('digiface_balance'):
        many, each, few, few_each = (int(r[k]) for k in list(r)[:4])
        assert many*each + few*few_each == 500_000


# ------------------------------------------------------------------ MinusFace and peers
def test_minusface_tables_repeat_each_other():
    table = {(r['method'], r['benchmark']): r['value_percent'] for r in rows('minusface_table1')}
    for r in rows('minusface_table2'):
        method = {'original image X': 'ArcFace', 'protected image X_p': 'MinusFace'}.get(r['trained_on'])
        if method: assert table[method, r['benchmark']] == r['accuracy_percent']
    four = {r['benchmark']: r['accuracy_percent'] for r in rows('minusface_table4')
            if (r['loss'], r['system']) == ('ArcFace', 'MinusFace')}
    five = {r['benchmark']: r['accuracy_percent'] for r in rows('minusface_table5') if r['variant'] == 'DCT, shuffling'}
    assert four == five


def test_minusface_and_partialface_print_the_same_rows():
    minus, partial = ({(r['method'], r['benchmark']): r['value_percent'] for r in rows(f'{name}_table1')}
                      for name in ('minusface', 'partialface'))
    shared = set(minus) & set(partial)
    assert len(shared) == 8*7 - 1
    assert {method for method, b in shared if minus[method, b] != partial[method, b]} == {'PPFR-FD'}


def test_minusface_recovers_worst_in_its_own_figure():
    table = rows('minusface_figure6')
    for column in ('ssim', 'psnr_db'): assert min(table, key=lambda r: float(r[column]))['method'] == 'MinusFace'


def test_fem_means_are_those_of_the_four_verifiers():
    attacks = defaultdict(dict)
    for r in rows('fem_attack_success'):
        attacks[r['target'], r['attack']][r['verifier']] = float(r['attack_success_percent'])
    printed = [a for a in attacks.values() if 'mean' in a]
    assert len(printed) == 8
    for a in printed: assert abs(sum(a[v] for v in ('MF', 'EF', 'GF', 'AF'))/4 - a['mean']) < .0751, a


def test_slerpface_drops_less_than_its_nominal_rate():
    value = {r['parameter']: float(r['value']) for r in rows('slerpface_settings')}
    c, gap = value['group_size'], int(value['gap_base']*value['nominal_drop_rate'])
    draws = c*value['nominal_drop_rate'] + gap, c*value['nominal_drop_rate'] - gap
    assert draws == (value['draws_per_low_attention_group'], value['draws_per_high_attention_group'])
    low, high = (c*(1 - (1 - 1/c)**n) for n in draws)
    assert abs(low - value['expected_dropped_dimensions_per_low_attention_group']) < .0051
    assert abs(high - value['expected_dropped_dimensions_per_high_attention_group']) < .0051
    assert abs((24*low + 25*high)/(value['groups']*c) - value['expected_drop_rate']) < .00051


# ------------------------------------------------------------------ LivePortrait
def test_liveportrait_speed_adds_up():
    table = {r['module']: r for r in rows('liveportrait_speed')}
    single = [r for r in table.values() if r['status'] != 'derived']
    for column in ('parameters_million', 'size_mb', 'time_ms'):
        assert abs(sum(float(r[column]) for r in single) - float(table['all'][column])) < 1e-9
        pair = sum(float(table[m][column]) for m in ('warping module', 'SPADE generator'))
        assert abs(pair - float(table['warping module and SPADE generator'][column])) < 1e-9
    frame = next(r['value'] for r in rows('liveportrait_settings') if r['parameter'] == 'frame_time')
    assert float(table['warping module and SPADE generator']['time_ms']) == float(frame)


def test_liveportrait_l1_and_psnr_are_not_of_one_error():
    "An error's RMSE is never below its mean absolute value; here it would be in every row, so the scales differ"
    for r in rows('liveportrait_table2'): assert 1.3 < float(r['l1'])/10**(-float(r['psnr_db'])/20) < 2.2, r


def test_liveportrait_is_best_where_it_is():
    "In all of table 2; in table 3 not in CSIM, and not in FID on TalkingHead-1KH"
    lower = ['lpips', 'l1', 'gaze_mae_degrees', 'fid', 'aed', 'apd']
    def winners(name, dataset):
        table = [r for r in rows(name) if r['dataset'] == dataset]
        columns = KEYS[name][1].split()
        return {c: min(table, key=lambda r: float(r[c])*(1 if c in lower else -1))['method'] for c in columns}
    for dataset in ('TalkingHead-1KH', 'VFHQ'):
        assert set(winners('liveportrait_table2', dataset).values()) == {'LivePortrait'}
        best = winners('liveportrait_table3', dataset)
        assert best.pop('csim') == 'X-Portrait'
        assert best.pop('fid') == {'TalkingHead-1KH': 'AniPortrait', 'VFHQ': 'LivePortrait'}[dataset]
        assert set(best.values()) == {'LivePortrait'}
