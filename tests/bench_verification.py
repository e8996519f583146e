"""Speed of the intervals on two threads: `python tests/bench_verification.py`

Draws of people with weights on one sorting, against what is usually written: draw rows, copy them, and call
scikit-learn on every copy. Both compute AUC, EER and TMR at FMR 1 % on the same comparisons, taking turns; the
best turn counts. The usual code gets a twentieth of the rounds, and its time is scaled up.
"""
import time
import numpy as np, torch
from sklearn.metrics import roc_auc_score, roc_curve
from faceprivacy.verification import Comparisons, auc, bootstrap, eer, roc, summary, tmr_at_fmr

torch.set_num_threads(2)

def comparisons(pairs, people=4000, seed=0):
    "As many comparisons in ten folds, half of them mated, as a good recogniser scores them"
    rng = np.random.default_rng(seed)
    mated = np.arange(pairs) % 2 == 0
    left = rng.integers(people, size=pairs)
    right = np.where(mated, left, (left + rng.integers(1, people, pairs)) % people)
    return Comparisons(np.clip(.6*mated + .13*rng.normal(size=pairs), -1, 1), mated, left, right)

def ours(c, rounds):
    def three(w):
        curve = roc(c.score, c.mated, w)
        return dict(auc=auc(curve), eer=eer(curve), tmr=tmr_at_fmr(curve, .01))
    return bootstrap(three, c, np.random.default_rng(0), rounds)

def usual(c, rounds):
    rng, found = np.random.default_rng(0), []
    for _ in range(rounds):
        rows = rng.integers(len(c), size=len(c))
        s, m = c.score[rows], c.mated[rows]
        far, tmr, _ = roc_curve(m, s, drop_intermediate=False)
        found.append([roc_auc_score(m, s), far[np.abs(far + tmr - 1).argmin()], tmr[far <= .01][-1]])
    return np.quantile(found, [.025, .975], axis=0)

def seconds(f, *args):
    begin = time.perf_counter()
    f(*args)
    return time.perf_counter() - begin

def main(rounds=1000, turns=3):
    for pairs in (6000, 42600):
        c = comparisons(pairs)
        c = c[np.argsort(-c.score)]
        best = [1e9]*3
        for _ in range(turns):
            now = (seconds(ours, c, rounds), 20*seconds(usual, c, rounds//20),
                   seconds(summary, c, np.random.default_rng(0), rounds))
            best = [min(x) for x in zip(best, now)]
        print(f'{pairs} comparisons, {rounds} rounds: people with weights {best[0]:.2f} s, rows with '
              f'scikit-learn {best[1]:.2f} s; the whole summary {best[2]:.2f} s')
        print(f'ratio rows with scikit-learn / people with weights, {pairs} comparisons: {best[1]/best[0]:.1f}')

if __name__ == '__main__': main()
