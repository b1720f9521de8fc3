# Asks Redis. Standard input: a line to pass over, the value to be refused, the value to be accepted.
read -r _key
IFS= read -r refused
IFS= read -r accepted
ask() {
  REDISCLI_AUTH=$1 redis-cli ping </dev/null 2>/dev/null | grep -q PONG
}
ask "$accepted" || { echo 'Redis refuses a password that it should accept, or does not answer' >&2; exit 1; }
! ask "$refused" || { echo 'Redis accepts a password that it should refuse' >&2; exit 1; }
