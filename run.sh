#!/usr/bin/env bash
# One door to everything:
#   bash run.sh                      set up, then the main job on the built-in sample set (about 5 minutes on 2 cores)
#   bash run.sh quick DIR [flags]    the main job on your own DIR/images and DIR/masks; see quick.py
#   bash run.sh table1 ... table5 --data CSVDIR [flags]     one of the paper's tables, with seeds and controls; see tables.py
#   bash run.sh figure3 --data CSVDIR [flags]               the lowest and the highest weights; `all`: tables and figure
#   bash run.sh alternatives --data CSVDIR [flags]          weightings beyond the paper
#   bash run.sh rivals --data CSVDIR [flags]                what else can be done with coarse masks: refine, select, correct, filter
#   bash run.sh blindkd [flags]      wrong class labels: BlindKD and its baselines on the digits; see related/blindkd/table.py
#   bash run.sh nlis [flags]         wrong class labels of regions and instances: NLIS and its rivals; see related/nlis/nlis_table.py
#   bash run.sh lad [flags]          a teacher that sees labels: LAD, plain distillation, no teacher; see related/lad/lad_table.py
#   bash run.sh test [pytest flags]  set up, then the fast tests; test all: every one
#   bash run.sh setup                set up only
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$home/.venv/bin/python

fail() { echo "run.sh: error: $*" >&2; exit 2; }

setup() {  # .venv with the requirements and the project itself; skipped while they are what was installed
    if ! cat "$home"/requirements*.txt "$home/pyproject.toml" | cmp -s - "$home/.venv/installed.txt"; then
        printf '\n\033[1m== %s\033[0m\n' "setting up .venv (once; PyTorch is a large download)"
        "${PYTHON:-python3}" -m venv "$home/.venv" || fail "python3 with venv is needed (Debian: apt install python3-venv)"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
            fail "Python 3.10 or newer is needed; remove $home/.venv, and name one: PYTHON=python3.12 bash run.sh"
        (cd "$home" && "$python" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt)
        cat "$home"/requirements*.txt "$home/pyproject.toml" > "$home/.venv/installed.txt"
    fi
}

case ${1:-sample} in
    setup) setup; echo "ready: $python" ;;
    test)  # the fast tests, or with `all` every one; further arguments go to pytest
        setup
        cd "$home"
        shift
        if [ "${1:-}" = all ]; then shift; else set -- -m "not slow and not prose" "$@"; fi
        exec "$python" -m pytest -n 2 --dist worksteal "$@" ;;  # tests of a file mostly stay together, as what they share does
    sample)
        [ $# -eq 0 ] || shift
        setup
        cd "$home"
        [ -d data/generated/sample ] || "$python" data/make_sample.py --out data/generated/sample
        exec "$python" quick.py data/generated/sample --model unet --width 16 --size 96 96 --theta 2 --folds 3 --epochs 14 \
            --lr-step 5 --batch-size 8 --learning-rate 0.002 --encoder-weights none --fast --jobs 2 "$@" ;;
    quick) setup; shift; exec "$python" "$home/quick.py" "$@" ;;
    table[1-5]|figure3|all|alternatives) setup; exec "$python" "$home/tables.py" "$@" ;;
    rivals)  # two of its rows need packages that nothing else here does
        setup
        "$python" -m pip install --quiet --disable-pip-version-check -r "$home/benchmarks/requirements.txt" \
            || echo "run.sh: benchmarks/requirements.txt cannot be installed: leave rows out with --rows" >&2
        exec "$python" "$home/tables.py" "$@" ;;
    blindkd) setup; shift; exec "$python" "$home/related/blindkd/table.py" "$@" ;;
    nlis) setup; shift; exec "$python" "$home/related/nlis/nlis_table.py" "$@" ;;
    lad) setup; shift; exec "$python" "$home/related/lad/lad_table.py" "$@" ;;
    -h|--help|help) sed -n '2,14s/^# \{0,1\}//p' "$0" ;;
    *) fail "unknown job '$1'; see bash run.sh --help" ;;
esac
