#!/usr/bin/env bash
# Lint and run the whole test suite: bash run_tests.sh [pytest options...]
set -euo pipefail
REQUIREMENTS="requirements.txt requirements-ray.txt tests/requirements.txt"
source "$(dirname "${BASH_SOURCE[0]}")/utils/environment.sh"

cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
