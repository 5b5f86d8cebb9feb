#!/usr/bin/env bash
# Every table and figure of the paper, and a report of them: bash reproduce.sh [DATASET...] [--quick] [options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

exec "$PYTHON" "$ROOT/reproduce.py" "$@"
