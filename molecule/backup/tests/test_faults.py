# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that are struck by every kind of misfortune, into a repository of their own.

Whatever happens: the run says so, what is halted wakes, the sets of before are whole, and the next run ends well.
"""

from __future__ import annotations

import json
import typing as t

import pytest

PLACE = "/srv/faults"
CONFIG = f"{PLACE}/config.json"
REPOSITORY = f"{PLACE}/disk/repository"
UNITS = "/run/systemd/system"

# Everything is on small disks of its own, which can be filled.
PREPARE = f"""
mkdir -p {PLACE}/disk {PLACE}/state {PLACE}/more
mount -t tmpfs -o size=300m,mode=0700 faults {PLACE}/disk
mount -t tmpfs -o size=64k,mode=0700 faults {PLACE}/state
head -c 3000000 /dev/urandom >{PLACE}/more/random
systemd-run --quiet --collect --unit faults-watch python3 -c "$WATCH" {PLACE}/lines
python3 - <<'END'
import json
with open("/etc/selfhost-dify-backup/config.json") as file:
    config = json.load(file)
config.update(
    name="faults", repository="{REPOSITORY}", state_path="{PLACE}/state", cache_path="{PLACE}/cache", append_only=False,
    paths=["{PLACE}/more"], edge_paths=[], edge_volumes=[], keep={{"last": 1}}, check_subset="100%", lock_timeout=60,
    textfile_path="{PLACE}/faults.prom", mode="online",
    alert_command=["sh", "-c", 'printf %s "$1" >{PLACE}/told', "sh"],
)
with open("{CONFIG}", "w") as file:
    json.dump(config, file)
END
mkdir {UNITS}/selfhost-dify-backup.service.d {UNITS}/selfhost-dify-backup-alert@.service.d
cat >{UNITS}/selfhost-dify-backup.service.d/faults.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/local/sbin/dify-backup --config {CONFIG} backup
ExecStopPost=
ExecStopPost=/usr/local/sbin/dify-backup --config {CONFIG} resume
END
cat >{UNITS}/selfhost-dify-backup-alert@.service.d/faults.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/local/sbin/dify-backup --config {CONFIG} alert %i
END
systemctl daemon-reload
"""
CLEAN = f"""
rm -r {UNITS}/selfhost-dify-backup.service.d {UNITS}/selfhost-dify-backup-alert@.service.d
systemctl daemon-reload
systemctl reset-failed 'selfhost-dify-backup*'
umount {PLACE}/disk {PLACE}/state
rm -r {PLACE}
"""
# Every command line that it sees, once.
WATCH = """
import glob, sys
seen = set()
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        for path in glob.iglob("/proc/[0-9]*/cmdline"):
            try:
                line = open(path, "rb").read().replace(b"\\0", b" ").replace(b"\\n", b" ")
            except OSError:
                continue
            if line not in seen:
                seen.add(line)
                file.write(line + b"\\n")
"""
# Starts a command, waits for a process of a name and a word among its arguments, does something, and waits for the end.
STRIKE = """
import json, os, signal, subprocess, sys, time
command, name, word, action = json.loads(sys.argv[1])

def found():
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{number}/cmdline").read().split("\\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == name and word in words:
            return int(number)

program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
while not (process := found()):
    if program.poll() is not None:
        sys.exit(f"it ended with {program.returncode} before there was a {name} {word}: {program.communicate()}")
    time.sleep(0.002)
containers = subprocess.getoutput("docker ps --all --format '{{.State}} {{.Names}}'")
os.environ.update(PROGRAM=str(program.pid), PROCESS=str(process))
subprocess.run(["sh", "-ec", action], check=True, stdout=sys.stderr)
said = program.communicate()[1]
while found():
    time.sleep(0.01)
print(json.dumps({"code": program.returncode, "said": said, "containers": containers.splitlines()}))
"""
# A partitioned table is nothing to count, but pg_dump waits for whoever locks it.
PSQL = "docker exec -i dify-db_postgres-1 psql -qAtU postgres -d dify -c"
HOLD = f"""
{PSQL} "DROP TABLE IF EXISTS faults_held"
{PSQL} "CREATE TABLE faults_held (number int) PARTITION BY LIST (number)"
systemd-run --quiet --collect --unit faults-hold {PSQL} "LOCK TABLE faults_held; SELECT pg_sleep(600)"
until {PSQL} "SELECT mode FROM pg_locks WHERE relation = 'faults_held'::regclass" | grep -q AccessExclusive
do sleep 0.1; done
"""
RELEASE = f"""
{PSQL} "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE faults_held%'"
{PSQL} "DROP TABLE IF EXISTS faults_held"
"""
LEFT = f"""
until test "$({PSQL} "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")" = 0
do sleep 0.1; done
"""


class Faults:
    """The host, where backups of the name ``faults`` go into the repository of that name."""

    def __init__(self, host: t.Any) -> None:
        self.host = host

    def run(self, *arguments: str, **changed: t.Any) -> t.Any:
        """Runs the program, with some of its configuration changed."""
        return self.host.run(" ".join(self.command(*arguments, **changed)))

    def command(self, *arguments: str, **changed: t.Any) -> list[str]:
        config = CONFIG
        if changed:
            config = f"{PLACE}/changed.json"
            text = json.dumps({**json.loads(self.host.check_output(f"cat {CONFIG}")), **changed})
            self.host.check_output(f"printf %%s %s >{config}", text)
        return ["dify-backup", "--config", config, *arguments]

    def done(self, *arguments: str, **changed: t.Any) -> t.Any:
        ended = self.run(*arguments, **changed)
        assert ended.rc == 0, ended.stderr
        return json.loads(ended.stdout)

    def restic(self, words: str) -> str:
        password = "/etc/selfhost-dify-backup/password"
        return t.cast("str", self.host.check_output(f"restic -r {REPOSITORY} --password-file {password} {words}"))

    def struck(self, name: str, word: str, action: str, **changed: t.Any) -> dict[str, t.Any]:
        """How a backup ended to which that happened: its code, what it said, and the containers of then."""
        given = json.dumps([self.command("backup", **changed), name, word, action])
        return t.cast("dict[str, t.Any]", json.loads(self.host.check_output("python3 -c %s %s", STRIKE, given)))

    def containers(self) -> list[str]:
        lines = self.host.check_output("docker ps --all --format '{{.State}} {{.Names}}'").splitlines()
        return sorted(lines)


@pytest.fixture(scope="module")
def faults(host: t.Any) -> t.Iterator[Faults]:
    host.check_output("WATCH=%s sh -ec %s", WATCH, PREPARE)
    made = Faults(host)
    made.done("init")
    yield made
    host.check_output("systemctl stop faults-watch")
    host.check_output("sh -ec %s", CLEAN)


@pytest.fixture(scope="module")
def first(faults: Faults) -> str:
    """The set that is there before anything happens."""
    return t.cast("str", faults.done("backup")["set"])


@pytest.fixture(autouse=True)
def unharmed(faults: Faults, first: str) -> t.Iterator[None]:
    before = faults.containers()
    yield
    assert faults.containers() == before
    status = faults.done("status")
    assert (status["newest"], status["complete"]) == (first, [first])


@pytest.fixture
def held(host: t.Any) -> t.Iterator[None]:
    host.check_output("sh -ec %s", HOLD)
    yield
    host.check_output("sh -ec %s", RELEASE)


def test_without_restic_the_set_stays_incomplete(faults: Faults) -> None:
    ended = faults.struck("restic", "part=files", "kill -9 $PROCESS")
    assert ended["code"] == 1
    assert "restic failed with -9" in ended["said"]
    assert faults.done("status")["runs"]["backup"]["success"] is False


def test_half_a_dump_is_none(faults: Faults, held: None) -> None:
    ended = faults.struck("pg_dump", "--dbname=dify", "kill -9 $PROCESS")
    assert ended["code"] == 1
    assert "docker exec failed with 137" in ended["said"]
    newest = json.loads(faults.restic("snapshots --no-lock --json"))[-1]
    assert "part=roles-db_postgres" in newest["tags"]


def test_of_a_killed_program_no_session_stays(faults: Faults, host: t.Any, held: None) -> None:
    ended = faults.struck("pg_dump", "--dbname=dify", "kill -9 $PROGRAM\n" + RELEASE)
    assert ended["code"] == -9
    host.check_output("timeout 30 sh -ec %s", LEFT)


def halted(ended: dict[str, t.Any]) -> bool:
    return any("paused" in line and "api" in line for line in ended["containers"]) and any(
        "exited" in line and "weaviate" in line for line in ended["containers"]
    )


def test_what_a_killed_program_halted_wakes(faults: Faults) -> None:
    ended = faults.struck("restic", "part=store", "kill -9 $PROGRAM $PROCESS")
    assert ended["code"] == -9
    assert halted(ended)
    assert faults.done("resume") == {"resumed": True}


# restic whose repository no longer answers once the vector store is halted.
HANGING = """#!/bin/sh
case "$*" in *part=store*) exec sleep 600 ;; *) exec restic "$@" ;; esac
"""


def test_users_do_not_wait_for_a_repository_that_hangs(faults: Faults, host: t.Any) -> None:
    host.check_output(f"printf %%s %s >{PLACE}/restic; chmod +x {PLACE}/restic", HANGING)
    ended = faults.run("backup", restic=f"{PLACE}/restic", halt_timeout=3)
    assert ended.rc == 1
    assert "not copied within 3 seconds" in ended.stderr


def test_a_killed_unit_wakes_everything_and_is_told(faults: Faults, host: t.Any) -> None:
    command = ["systemctl", "start", "selfhost-dify-backup"]
    given = json.dumps([command, "restic", "part=store", "systemctl kill --signal KILL selfhost-dify-backup"])
    ended = json.loads(host.check_output("python3 -c %s %s", STRIKE, given))
    assert ended["code"] != 0
    assert halted(ended)
    host.check_output("timeout 30 sh -c %s", f"until test -e {PLACE}/told; do sleep 0.1; done")
    assert host.file(f"{PLACE}/told").content_string == "faults: backup failed: it was cut short"
    host.check_output(
        "timeout 30 sh -c %s", f"until grep -q 'success.*backup.* 0' {PLACE}/faults.prom; do sleep 0.1; done"
    )
    assert host.file(f"{PLACE}/faults.prom").mode == 0o644


@pytest.mark.parametrize("room", [0, 2_000_000])
def test_a_full_repository_fails_the_run(faults: Faults, host: t.Any, room: int) -> None:
    filler = f"{PLACE}/disk/filler"
    free = int(host.check_output(f"df --output=avail --block-size=1 {PLACE}/disk | tail -1"))
    host.check_output(f"fallocate -l {free - room} {filler}; head -c 3000000 /dev/urandom >{PLACE}/more/random")
    try:
        ended = faults.run("backup")
        assert ended.rc == 1
        assert "no space left" in ended.stderr
    finally:
        host.check_output(f"rm {filler}")


def test_a_full_server_fails_the_run_before_anything_is_halted(faults: Faults, host: t.Any) -> None:
    host.run(f"cat /dev/zero >{PLACE}/state/filler")
    try:
        ended = faults.run("backup")
        assert ended.rc == 1
        assert "No space left" in ended.stderr
    finally:
        host.check_output(f"rm {PLACE}/state/filler")


def test_a_wrong_password_changes_nothing(faults: Faults, host: t.Any) -> None:
    before = host.check_output(f"find {REPOSITORY} -type f | sort")
    host.check_output(f"echo another >{PLACE}/password")
    for command in ("init", "backup", "check"):
        ended = faults.run(command, password_file=f"{PLACE}/password")
        assert ended.rc == 1
        assert "wrong password" in ended.stderr
    assert host.check_output(f"find {REPOSITORY} -type f | sort") == before


OTHER = f"""
mkfifo {PLACE}/fifo
export RESTIC_PASSWORD_FILE=/etc/selfhost-dify-backup/password RESTIC_REPOSITORY={REPOSITORY}
systemd-run --quiet --collect --unit faults-other --setenv RESTIC_PASSWORD_FILE --setenv RESTIC_REPOSITORY \\
  --setenv HOME=/root unshare --uts sh -c 'hostname other
  exec restic backup --stdin --host other --tag selfhost.dify --tag set=20200101T000000Z-000000 <{PLACE}/fifo'
exec 3>{PLACE}/fifo
"""


def test_servers_that_share_a_repository_leave_each_other_alone(faults: Faults, host: t.Any) -> None:
    """Another server's backup is under way while this one forgets and prunes."""
    script = f"""{OTHER}
    until restic list locks --no-lock | grep -q .; do sleep 0.1; done
    if dify-backup --config {PLACE}/changed.json forget 2>{PLACE}/said; then exit 1; fi
    restic list locks --no-lock | wc -l
    echo content >&3
    exec 3>&-
    while systemctl is-active --quiet faults-other; do sleep 0.1; done
    restic snapshots --no-lock --host other | grep -c set=20200101T000000Z-000000
    """
    faults.command("forget", lock_timeout=0)
    assert host.check_output("bash -ec %s", script).split() == ["1", "1"]
    assert "already locked" in host.file(f"{PLACE}/said").content_string


def test_damage_is_found_and_a_lost_part_is_named(faults: Faults, host: t.Any, first: str) -> None:
    copy = f"{PLACE}/disk/copy"
    host.check_output(f"cp -a {REPOSITORY} {copy}")
    dump = next(one for one in json.loads(faults.restic("snapshots --no-lock --json")) if f"set={first}" in one["tags"])
    host.check_output(f"restic -r {copy} --password-file /etc/selfhost-dify-backup/password forget {dump['id']}")
    lost = next(tag for tag in dump["tags"] if tag.startswith("part=")).removeprefix("part=")
    assert faults.done("status", repository=copy)["incomplete"][first] == [lost]
    for arguments in (("show", "--set", first), ("restore",)):
        ended = faults.run(*arguments, repository=copy)
        assert ended.rc == 1
        assert lost in ended.stderr
    pack = host.check_output(f"find {copy}/data -type f -size +100k | head -1")
    host.check_output(f"chmod u+w {pack}; printf damage | dd of={pack} bs=1 seek=5000 conv=notrunc 2>/dev/null")
    assert faults.run("check", repository=copy).rc == 1
    assert 'last_run_success{command="check"} 0.0' in host.file(f"{PLACE}/faults.prom").content_string
    host.check_output(f"rm -r {copy}")


def test_no_secret_was_on_a_command_line_or_in_the_journal(host: t.Any, environment: dict[str, str]) -> None:
    secrets = [environment[name] for name in ("DB_PASSWORD", "SECRET_KEY", "PLUGIN_DAEMON_KEY")]
    secrets.append(host.check_output("cat /etc/selfhost-dify-backup/password").strip())
    lines = host.file(f"{PLACE}/lines").content_string
    for program in ("pg_dump ", "docker exec ", "part=store"):
        assert program in lines
    journal = host.check_output("journalctl --no-pager --output cat")
    assert not [secret for secret in secrets if secret in lines or secret in journal]


class TestAfterwards:
    """The next run."""

    @pytest.fixture(autouse=True)
    def unharmed(self) -> None:
        """Here the first set may go."""

    def test_it_ends_well_and_what_was_left_unfinished_goes(self, faults: Faults, first: str) -> None:
        made = faults.done("backup")["set"]
        assert faults.done("status")["incomplete"]
        faults.done("forget")
        status = faults.done("status")
        assert (status["complete"], status["incomplete"]) == ([made], {})
        faults.done("check")
