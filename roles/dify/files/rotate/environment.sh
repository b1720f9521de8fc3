# Compares with what the container was started with, where nothing can be asked. Argument: the variable's name.
# Standard input: a line to pass over, the value that must be gone, the value that must be there.
read -r _key
IFS= read -r refused
IFS= read -r accepted
held=$(printenv "$1")
[ "$held" = "$accepted" ] || { echo "The container does not hold the expected $1" >&2; exit 1; }
[ "$held" != "$refused" ] || { echo "The container still holds the former $1" >&2; exit 1; }
