#!/usr/bin/env bash
# Every part of the tests, each run whatever the others say; ends with the seconds of each, and fails if one failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
summary=()
result=0
for part in lint unit sanity integration molecule; do
  echo "=== make $part"
  began=$SECONDS
  if make --no-print-directory "$part"; then said=passed; else said=FAILED result=1; fi
  summary+=("$(printf '%-12s %-6s %5d s' "$part" "$said" $((SECONDS - began)))")
done
echo "=== all parts"
printf '%s\n' "${summary[@]}" "$(printf '%-12s %-6s %5d s' together '' "$SECONDS")"
exit $result
