#!/usr/bin/env bash
# Copies what git knows or would take into .cache/collection/ansible_collections/selfhost/dify and prints that path:
# ansible-test wants a real directory of that name, not the clone's symlink.
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=$PWD/.cache/collection/ansible_collections/selfhost/dify
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard --deduplicate -- . ':!.collections' \
  | while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done \
  | tar --create --null --files-from - | tar --extract --directory "$copy"
git init --quiet "$copy" # else ansible-test asks the clone's git, which ignores everything under .cache
echo "$copy"
