#!/usr/bin/env bash
# Everything that one accelerator is asked, in nine minutes, without a network; leaves accelerator.json.
#   benchmarks/accelerator.sh [--quick] [--json FILE] [--parts attention,sweep,plan,suite,pmap]
set -euo pipefail
cd "$(dirname "$0")/.."
exec python benchmarks/accelerator.py "$@"
