#!/usr/bin/env bash
# One door to everything:
#   bash run.sh                      set up, then the main job on the built-in sample set (about 6 minutes on 2 cores)
#   bash run.sh quick DIR [flags]    the main job on your own DIR/images and DIR/masks
#   bash run.sh table1 ... table5 --data CSVDIR [flags]     one of the paper's tables, with seeds and controls; see tables.py
#   bash run.sh figure3 --data CSVDIR [flags]               the lowest and the highest weights; `all`: tables and figure
#   bash run.sh test [pytest flags]  set up, then the tests
#   bash run.sh setup                set up only
#
# The main job: split -> noise on 60 % of train and valid -> out-of-fold teachers -> weights -> train without weight, with
# the teacher's weight, with KD weight, and on clean masks -> a table and figures in runs/NAME/report.
# DIR holds images/ and masks/, or the train.csv, valid.csv and test.csv of a data/prepare_*.py script; with train_truth.csv
# beside them its masks are taken as coarse as they are, and no noise is added.
# Flags of quick: --name N  --folds K  --ratio R  --limit N  --seed S  --num-classes C  --noise KIND  --background B  --encoder E
# --encoder-weights W; any other flag goes to every training (e.g. --epochs 20 --size 256 256 --precision bf16-mixed).
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

needs_photos() {  # needs_photos JOB DIR
    [ -n "${2:-}" ] || fail "$1 needs a folder with images/ and masks/: bash run.sh $1 DIR"
    [ -e "$2/train.csv" ] || { [ -d "$2/images" ] && [ -d "$2/masks" ]; } || fail "$2: images/ and masks/ (or train.csv) are needed in it"
}

parse_flags() {  # parse_flags PHOTOS [flags]: the flags of a job, as variables; what is left goes to every training
    photos=$1 name=sample folds=2 ratio=0.6 limit="" seed=0
    encoder=mobilenet_v2 encoder_weights=imagenet train=() size=(--size 160 160) theta=(--theta 3)
    classes=(--num-classes 2) coarse=()
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --name|--folds|--ratio|--limit|--seed|--encoder) printf -v "${1#--}" %s "$2"; shift 2 ;;
            --encoder-weights) encoder_weights=$2; shift 2 ;;
            --size) size=(--size "$2" "$3"); shift 3 ;;
            --theta) theta=(--theta "$2"); shift 2 ;;
            --num-classes) classes=(--num-classes "$2"); shift 2 ;;
            --noise|--background) coarse+=("$1" "$2"); shift 2 ;;
            *) train+=("$1"); shift ;;
        esac
    done
}

split() {  # split OUT: sets splits to the folder of train.csv, valid.csv, test.csv
    splits=$photos
    if [ ! -e "$photos/train.csv" ]; then
        splits=$1/csv
        once "$splits/test.csv" data/prepare_folder.py "$photos" --out "$splits" --seed "$seed" ${limit:+--limit "$limit"}
    fi
    legend=()
    if [ -e "$splits/classes.json" ]; then legend=(--classes "$splits/classes.json"); fi
}

begin_job() {  # begin_job OUT DESCRIPTION: refuse a folder that holds another job
    if [ -e "$1/job.txt" ] && [ "$(cat "$1/job.txt")" != "$2" ]; then
        fail "$1 holds the job '$(cat "$1/job.txt")'; pass --name for another one, or remove $1"
    fi
    mkdir -p "$1/csv" && echo "$2" > "$1/job.txt"
}

annotations() {  # annotations TO SEED: sets noisy and clean (train CSVs), their _valid, and truth (flags that name it)
    local split
    if [ -e "$splits/train_truth.csv" ]; then  # really coarse, as they were drawn: no noise is needed
        noisy=$splits/train.csv noisy_valid=$splits/valid.csv clean=$splits/train_truth.csv clean_valid=$splits/valid_truth.csv
        truth=(--truth "$clean")
    else
        for split in train valid; do
            once "$1/${split}_noisy.csv" utils/generate_noisy_label.py --csv "$splits/$split.csv" --out "$1/${split}_noisy.csv" \
                --ratio "$ratio" --seed "$2" --overwrite "${classes[@]}" ${coarse[@]+"${coarse[@]}"}
        done
        noisy=$1/train_noisy.csv noisy_valid=$1/valid_noisy.csv clean=$splits/train.csv clean_valid=$splits/valid.csv
        truth=()
    fi
}

weigh() {  # weigh PSEUDO STEM: weight CSVs of the noisy annotations, STEM_weight_{miou,bf,bm}score.csv
    local metric
    for metric in miou bf bm; do
        once "$2_weight_${metric}score.csv" utils/get_weight.py --csv "$noisy" --pred-dir "$1" --metric $metric \
            --out "$2_weight_${metric}score.csv" "${size[@]}" "${theta[@]}" "${classes[@]}" ${truth[@]+"${truth[@]}"}
    done
}

main_job() {  # main_job PHOTOS [flags]
    parse_flags "$@"
    train+=(--encoder "$encoder" --encoder-weights "$encoder_weights")
    local out=runs/$name stem=runs/$name/csv/train_noisy
    begin_job "$out" "photos $photos folds $folds ratio $ratio limit $limit seed $seed ${size[*]} ${theta[*]} ${classes[*]} ${coarse[*]} ${train[*]}"

    say "1/5 split and noise"
    split "$out"
    annotations "$out/csv" "$seed"

    # the same for every training; --resume makes a finished one return at once and a broken one go on
    local flags=("${size[@]}" "${theta[@]}" "${classes[@]}" --seed "$seed" --cache --out-dir "$out" --resume --valid_csv "$noisy_valid" "${train[@]}")
    say "2/5 teachers, $folds folds: each judges the masks it never saw"
    step train_teacher.py --train_csv "$noisy" --name teacher --folds "$folds" "${flags[@]}"

    say "3/5 weights"
    weigh "$out/teacher/pseudo" "$stem"

    say "4/5 students"
    flags+=(--test_csv "$splits/test.csv")
    step train_without_weight.py --train_csv "$noisy" --name noisy "${flags[@]}"
    step train_with_Teacher_weight.py --train_csv "${stem}_weight_bmscore.csv" --name teacher_bm "${flags[@]}"
    step train_with_KDweight.py --train_csv "${stem}_weight_bmscore.csv" --name kd_bm "${flags[@]}" --lambda-warmup 2
    step train_without_weight.py --train_csv "$clean" --name clean "${flags[@]}" --valid_csv "$clean_valid"

    say "5/5 report"
    step report.py "$out"/{noisy,teacher_bm,kd_bm,clean} --out "$out/report" --weights "${stem}"_weight_{miou,bf,bm}score.csv \
        --pred-dir "$out/teacher/pseudo" ${legend[@]+"${legend[@]}"}
}

case ${1:-sample} in
    setup) setup; echo "ready: $python" ;;
    test)  # the fast tests, or with `all` every one; further arguments go to pytest
        setup
        shift
        if [ "${1:-}" = all ]; then shift; else set -- -m "not slow and not prose" "$@"; fi
        exec $python -m pytest -n 2 "$@" ;;
    sample)
        setup
        once data/generated/sample data/make_sample.py --out data/generated/sample
        main_job data/generated/sample --model unet --width 16 --size 96 96 --theta 2 --epochs 12 --batch-size 8 \
            --optimizer adamw --learning-rate 0.002 --lr-step 4 --encoder-weights none "${@:2}" ;;
    quick)
        needs_photos "$@"
        setup
        main_job "$2" --name "$(basename "$2")" --model smp_unet --epochs 12 --batch-size 16 --optimizer adamw --learning-rate 0.001 --lr-step 4 "${@:3}" ;;
    table[1-5]|figure3|all|alternatives) setup; exec $python tables.py "$@" ;;
    -h|--help|help) sed -n '2,16s/^# \{0,1\}//p' "$0" ;;
    *) fail "unknown job '$1'; see bash run.sh --help" ;;
esac
