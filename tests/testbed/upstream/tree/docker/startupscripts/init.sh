#!/bin/sh
# Makes Dify's user once.
marker=/opt/oracle/oradata/dbinit
[ -f "$marker" ] || { "$ORACLE_HOME/bin/sqlplus" -s "/ as sysdba" @/opt/oracle/scripts/startup/init_user.script && touch "$marker"; }
