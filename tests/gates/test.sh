#!/usr/bin/env bash
# Every part of the tests, each run whatever the others say; ends with what failed and the seconds of each part.
set -uo pipefail
cd "$(dirname "$0")/../.."
logs=.cache/test
rm -rf "$logs"
mkdir -p "$logs"

# Runs one part, and leaves its line of the summary; one that others run beside shows what it says when it ends.
part() {
  local began=$SECONDS said=passed
  if [ "${2:-}" = beside ]; then
    make --no-print-directory "$1" >"$logs/$1.log" 2>&1 || said=FAILED
    flock "$logs" sh -c 'echo "=== make $1"; cat "$0/$1.log"' "$logs" "$1"
  else
    echo "=== make $1"
    make --no-print-directory "$1" 2>&1 | tee "$logs/$1.log" || said=FAILED
  fi
  printf '%-12s %-6s %5d s\n' "$1" $said $((SECONDS - began)) >"$logs/$1.summary"
}

# Most of them use one processor.
{ part lint beside; part unit beside; } &
{ part sanity beside; part integration beside; } &
wait
part molecule

summaries=("$logs"/{lint,unit,sanity,integration,molecule}.summary)
failed=$(awk '$2 == "FAILED" { print $1 }' "${summaries[@]}")
# A reader of the last page only has to see what to look for.
for part in $failed; do
  echo "=== lines of $part that tell what failed (all of it: $logs/$part.log)"
  grep --extended-regexp '^(\[[a-z0-9-]+\] )?(FAILED [^-]|ERROR |E   |fatal: |lint found)' "$logs/$part.log" | cut --characters -300 | tail --lines 12
done
echo "=== all parts"
cat "${summaries[@]}"
printf '%-12s %-6s %5d s\n' together '' "$SECONDS"
[ -z "$failed" ]
