#!/usr/bin/env bash
# Lint the code and run the whole test suite, two tests at a time: bash run_tests.sh [pytest options...]
set -euo pipefail
REQUIREMENTS="requirements.txt requirements-ray.txt requirements-app.txt tests/requirements.txt"
source -- "$(dirname -- "${BASH_SOURCE[0]}")/utils/environment.sh"

cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # two workers on two cores; more threads than cores are much slower
exec "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
