#!/usr/bin/env bash
# Every linter, each named and all run, so that one look shows all there is to mend.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/.venv/bin:$PATH LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1
bundle=$(python -c 'import ansible_collections; print(next(iter(ansible_collections.__path__)) + "/..")')
export ANSIBLE_COLLECTIONS_PATH=$PWD/.collections:$bundle
failed=()

check() {
  local name=$1
  shift
  echo "--- $name"
  "$@" || failed+=("$name")
}

own=.collections/ansible_collections/selfhost/dify
check yamllint yamllint --strict .
check ansible-lint ansible-lint --offline --strict
check "ruff check" ruff check .
check "ruff format" ruff format --check .
check mypy mypy "$own/plugins/module_utils"
check "mypy (backup)" env MYPYPATH=roles/backup/files mypy -p dify_backup
check antsibull-changelog antsibull-changelog lint

# antsibull-docs reads every collection it finds; of the hundred beside ansible-core only these can be referred to.
docs=$PWD/.cache/docs/ansible_collections
mkdir -p "$docs/community" "$docs/selfhost"
ln -sfn "$PWD" "$docs/selfhost/dify"
ln -sfn "$bundle/ansible_collections/community/docker" "$docs/community/docker"
ln -sfn "$bundle/ansible_collections/community/library_inventory_filtering_v1" "$docs/community/library_inventory_filtering_v1"
check antsibull-docs env ANSIBLE_COLLECTIONS_PATH="$PWD/.cache/docs" antsibull-docs lint-collection-docs \
  --plugin-docs --validate-collection-refs=dependent --disallow-unknown-collection-refs .

if [ ${#failed[@]} -gt 0 ]; then
  printf 'lint found something: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
