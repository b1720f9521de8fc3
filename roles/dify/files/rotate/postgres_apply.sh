# Gives the role a new password over the local socket. Standard input: the rotation's three lines.
read -r _key
IFS= read -r old
IFS= read -r NEW
export NEW
role=${POSTGRES_USER:-${PGUSER:-postgres}}
# The image trusts its local socket; a cluster that does not takes the old password, or the new one when run again.
for PGPASSWORD in "$old" "$NEW"; do
  export PGPASSWORD
  # Only a superuser may keep the statement out of the server's log, hence those failures do not count.
  psql --no-psqlrc --quiet --no-password --username "$role" --dbname postgres <<'SQL' && exit 0
\getenv new NEW
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
\set VERBOSITY terse
\set ON_ERROR_STOP on
ALTER ROLE CURRENT_USER PASSWORD :'new';
SQL
done
exit 1
