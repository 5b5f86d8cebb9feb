#!/usr/bin/env bash
# Reproduce all tables and figures of the paper, with a report: bash reproduce.sh [DATASET...] [--quick] [options...]
set -euo pipefail
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

exec "$PYTHON" "$ROOT/reproduce.py" "$@"
