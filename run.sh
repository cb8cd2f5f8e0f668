#!/usr/bin/env bash
# One door to everything:
#   bash run.sh                      set up, then the main job on the built-in sample set (about 6 minutes on 2 cores)
#   bash run.sh quick DIR [flags]    the main job on your own DIR/images and DIR/masks
#   bash run.sh test [pytest flags]  set up, then the tests
#   bash run.sh setup                set up only
#
# The main job: split -> noise on 60 % of train and valid -> out-of-fold teachers -> weights -> train without weight, with
# the teacher's weight, with KD weight, and on clean masks -> a table and figures in runs/NAME/report.
# Flags of the main job: --name N  --folds K  --ratio R  --limit N  --seed S; any other flag goes to every training
# (e.g. --epochs 20 --size 256 256 --encoder resnet50 --encoder-weights imagenet).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=.venv/bin/python

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { echo "run.sh: error: $*" >&2; exit 2; }

setup() {  # .venv with requirements.txt; skipped while requirements.txt is the one that was installed
    if ! cmp -s requirements.txt .venv/installed.txt; then
        say "setting up .venv (once; PyTorch is a large download)"
        "${PYTHON:-python3}" -m venv .venv || fail "python3 with venv is needed (Debian: apt install python3-venv)"
        $python -m pip install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt .venv/installed.txt
    fi
}

step() { printf '\n+ python %s\n' "$*"; "$python" "$@"; }              # show a command, run it
once() { local result=$1; shift; [ -e "$result" ] || step "$@"; }      # run it unless its result is there

main_job() {  # main_job PHOTOS [flags]
    local photos=$1 name=sample folds=2 ratio=0.6 limit="" seed=0 train=() size=(--size 160 160) theta=(--theta 3)
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --name) name=$2; shift 2 ;;
            --folds) folds=$2; shift 2 ;;
            --ratio) ratio=$2; shift 2 ;;
            --limit) limit=$2; shift 2 ;;
            --seed) seed=$2; shift 2 ;;
            --size) size=(--size "$2" "$3"); shift 3 ;;
            --theta) theta=(--theta "$2"); shift 2 ;;
            *) train+=("$1"); shift ;;
        esac
    done
    local out=runs/$name csv=runs/$name/csv metric
    local job="photos $photos folds $folds ratio $ratio limit $limit seed $seed ${size[*]} ${theta[*]} ${train[*]}"
    if [ -e "$out/job.txt" ] && [ "$(cat "$out/job.txt")" != "$job" ]; then
        fail "$out holds the job '$(cat "$out/job.txt")'; pass --name for another one, or remove $out"
    fi
    mkdir -p "$csv" && echo "$job" > "$out/job.txt"

    say "1/5 split and noise"
    once "$csv/test.csv" data/prepare_folder.py "$photos" --out "$csv" --seed "$seed" --overwrite ${limit:+--limit "$limit"}
    for split in train valid; do
        once "$csv/${split}_noisy.csv" utils/generate_noisy_label.py --csv "$csv/$split.csv" --out "$csv/${split}_noisy.csv" \
            --ratio "$ratio" --seed "$seed" --overwrite
    done

    # the same for every training; --resume makes a finished one return at once and a broken one go on
    local flags=("${size[@]}" "${theta[@]}" --seed "$seed" --cache --out-dir "$out" --resume --valid_csv "$csv/valid_noisy.csv" "${train[@]}")
    say "2/5 teachers, $folds folds: each judges the masks it never saw"
    step train_teacher.py --train_csv "$csv/train_noisy.csv" --name teacher --folds "$folds" "${flags[@]}"

    say "3/5 weights"
    for metric in miou bf bm; do
        once "$csv/train_noisy_weight_${metric}score.csv" utils/get_weight.py --csv "$csv/train_noisy.csv" \
            --pred-dir "$out/teacher/pseudo" --metric $metric --out "$csv/train_noisy_weight_${metric}score.csv" \
            "${size[@]}" "${theta[@]}" --workers 2
    done

    say "4/5 students"
    flags+=(--test_csv "$csv/test.csv")
    step train_without_weight.py --train_csv "$csv/train_noisy.csv" --name noisy "${flags[@]}"
    step train_with_Teacher_weight.py --train_csv "$csv/train_noisy_weight_bmscore.csv" --name teacher_bm "${flags[@]}"
    step train_with_KDweight.py --train_csv "$csv/train_noisy_weight_bmscore.csv" --name kd_bm "${flags[@]}" --lambda-warmup 2
    step train_without_weight.py --train_csv "$csv/train.csv" --name clean "${flags[@]}" --valid_csv "$csv/valid.csv"

    say "5/5 report"
    step report.py "$out"/{noisy,teacher_bm,kd_bm,clean} --out "$out/report" --weights "$csv"/train_noisy_weight_{miou,bf,bm}score.csv \
        --noisy-csv "$csv/train_noisy.csv" --pred-dir "$out/teacher/pseudo"
}

case ${1:-sample} in
    setup) setup; echo "ready: $python" ;;
    test) setup; shift; exec $python -m pytest "$@" ;;
    sample)
        setup
        once data/generated/sample data/make_sample.py --out data/generated/sample
        main_job data/generated/sample --model unet --width 16 --size 96 96 --theta 2 --epochs 12 --batch-size 8 \
            --optimizer adamw --learning-rate 0.002 --lr-step 4 "${@:2}" ;;
    quick)
        [ -n "${2:-}" ] || fail "quick needs a folder with images/ and masks/: bash run.sh quick DIR"
        [ -d "$2/images" ] && [ -d "$2/masks" ] || fail "$2: images/ and masks/ are needed in it"
        setup
        main_job "$2" --name "$(basename "$2")" --model smp_unet --encoder mobilenet_v2 --encoder-weights imagenet \
            --epochs 12 --batch-size 16 --optimizer adamw --learning-rate 0.001 --lr-step 4 "${@:3}" ;;
    -h|--help|help) sed -n '2,13s/^# \{0,1\}//p' "$0" ;;
    *) fail "unknown job '$1'; see bash run.sh --help" ;;
esac
