#!/usr/bin/env bash
# Run the Top-K grid, k_text x k_audio x seeds (Fig. 2): bash selected_topK.sh [DATASET] [options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

if [[ ${1:--} != -* ]]; then set -- --dataset "$@"; fi
exec "$PYTHON" "$ROOT/sweep.py" "$@"
