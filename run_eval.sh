#!/usr/bin/env bash
# Evaluate saved checkpoints: bash run_eval.sh [DATASET | run folder | checkpoint] [eval.py options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

exec "$PYTHON" "$ROOT/eval.py" "$@"
