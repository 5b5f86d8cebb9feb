#!/usr/bin/env bash
# Cross-validate by session, speaker or at random: bash run_folds.sh [DATASET] [--by session|speaker|random] [options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

if [[ ${1:--} != -* ]]; then set -- --dataset "$@"; fi
exec "$PYTHON" "$ROOT/folds.py" "$@"
