#!/usr/bin/env bash
# Train one configuration over five seeds: bash run_training.sh [DATASET] [train.py options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

if [[ ${1:--} != -* ]]; then set -- --dataset "$@"; fi
exec "$PYTHON" "$ROOT/train.py" "$@"
