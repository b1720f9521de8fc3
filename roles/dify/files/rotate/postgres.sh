# Asks every database by the network, where the image wants a password. Argument: the service's name.
# Standard input, as for every program here: a line to pass over, the value to be refused, the value to be accepted.
read -r _key
IFS= read -r refused
IFS= read -r accepted
role=${POSTGRES_USER:-${PGUSER:-postgres}}
ask() {
  PGPASSWORD=$1 psql --no-psqlrc --no-password --host "$service" --username "$role" --dbname "$2" --tuples-only --no-align \
    --command "$3" </dev/null
}
service=$1
databases=$(ask "$accepted" postgres 'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate') || exit 1
for database in $databases; do
  ask "$accepted" "$database" 'SELECT 1' >/dev/null || exit 1
  if ask "$refused" "$database" 'SELECT 1' >/dev/null 2>&1; then
    echo "$service: database $database accepts a password that it should refuse" >&2
    exit 1
  fi
done
echo $databases
