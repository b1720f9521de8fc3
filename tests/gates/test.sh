#!/usr/bin/env bash
# Every part of the tests, each run whatever the others say; ends with what failed and the seconds of each part.
set -uo pipefail
cd "$(dirname "$0")/../.."
logs=.cache/test
mkdir -p "$logs"
summary=()
failed=()
for part in lint unit sanity integration molecule; do
  echo "=== make $part"
  began=$SECONDS
  if make --no-print-directory "$part" 2>&1 | tee "$logs/$part.log"; then said=passed; else said=FAILED failed+=("$part"); fi
  summary+=("$(printf '%-12s %-6s %5d s' "$part" "$said" $((SECONDS - began)))")
done
# A reader of the last page only has to see what to look for.
for part in "${failed[@]}"; do
  echo "=== lines of $part that tell what failed (all of it: $logs/$part.log)"
  grep --extended-regexp '^(\[[a-z0-9-]+\] )?(FAILED [^-]|ERROR |E   |fatal: |lint found)' "$logs/$part.log" | cut --characters -300 | tail --lines 12
done
echo "=== all parts"
printf '%s\n' "${summary[@]}" "$(printf '%-12s %-6s %5d s' together '' "$SECONDS")"
exit $((${#failed[@]} > 0))
