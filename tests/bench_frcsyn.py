"""Speed of FRCSyn's scores on two threads: `python tests/bench_frcsyn.py`

All four lists of task 2 at their full size, 42,600 comparisons, 1,000 rounds of the bootstrap: a whole report of one
system, and of two with their paired differences. Against what is usually written: draw rows, copy them, and call
scikit-learn on every copy, for AUC, FNMR at FMR 1 % and accuracy alone. The two take turns and the best turn counts;
the usual code gets a fiftieth of the rounds, and its time is scaled up. The bar is 20 s for the report.
"""
import time
import numpy as np, torch
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve
from faceprivacy.challenge_scores import Options, report, score_systems
from faceprivacy.comparison_lists import DATABASES, GROUPS, _ends, _numbered
from faceprivacy.stand_ins import stand_in
from faceprivacy.submissions import stand_in_answers

torch.set_num_threads(2)

def full_lists(seed=0):
    "Stand-ins of all lists at full size, BUPT in its eight groups"
    rng, found = np.random.default_rng(seed), {}
    for d in DATABASES:
        rows = [_ends(d, d, ';'.join(pair)) for pair in stand_in(d, rng)]
        left, right, a, b = map(list, zip(*rows))
        found[d] = _numbered(d, left, right, a, b)
    gender = {p: {'f': 'female', 'm': 'male'}[p.split('/')[1][3]] for p in found['bupt'].people}
    return found | dict(bupt=found['bupt'].with_genders(gender))

def ours(lists, systems, options):
    return report(score_systems(systems, lists, '2.1', options), systems, lists)

def usual(lists, answers, rounds):
    "Rows drawn again, and scikit-learn on each copy, for every database and for every group of BUPT"
    rng, found = np.random.default_rng(0), []
    parts = [(lists[d].mated, answers[d]) for d in lists]
    for _ in range(rounds):
        for mated, a in parts:
            rows = rng.integers(len(mated), size=len(mated))
            m, s = mated[rows], a.score[rows]
            fmr, tmr, _ = roc_curve(m, s, drop_intermediate=False)
            found.append([accuracy_score(m, a.decision[rows]), roc_auc_score(m, s), 1 - tmr[fmr <= .01][-1]])
        x, a = lists['bupt'], answers['bupt']
        for g in range(len(x.groups)):
            rows = rng.choice(np.flatnonzero(x.group == g), 1000)
            found.append([accuracy_score(x.mated[rows], a.decision[rows])]*3)
    return np.quantile(found, [.025, .975], axis=0)

def seconds(f, *args):
    begin = time.perf_counter()
    f(*args)
    return time.perf_counter() - begin

def main(rounds=1000, turns=3, share=50):
    lists = full_lists()
    assert lists['bupt'].groups == GROUPS
    found = stand_in_answers({'2.1': lists}, np.random.default_rng(1))
    both = {r: {d: found['2.1', d, r] for d in lists} for r in ('baseline', 'proposed')}
    one, options, best = {'proposed': both['proposed']}, Options(rounds=rounds), [1e9]*3
    for _ in range(turns):
        now = (seconds(ours, lists, one, options), seconds(ours, lists, both, options),
               share*seconds(usual, lists, one['proposed'], rounds//share))
        best = [min(x) for x in zip(best, now)]
    n = sum(map(len, lists.values()))
    print(f'{n:,} comparisons, {rounds} rounds: report of one system {best[0]:.2f} s (the bar is 20 s), of two with '
          f'differences {best[1]:.2f} s; rows with scikit-learn, three figures of one system {best[2]:.2f} s')
    print(f'ratio rows with scikit-learn / report of one system: {best[2]/best[0]:.1f}')

if __name__ == '__main__': main()
