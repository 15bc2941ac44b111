#!/usr/bin/env bash
# A Slurm of one node without accounting, made for this test and taken down by it, whatever happens; all of it but
# Debian's packages lies in a temporary folder, with ports and keys of its own. The proofs are in prove_slurm.py.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() {
  echo "test-slurm: $*" >&2
  exit 2
}

if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || refuse "needs root, or sudo without a password"
  exec sudo -n "$0" "$@"
fi
command -v apt-get >/dev/null || refuse "needs apt-get (Debian, Ubuntu)"
command -v pgrep >/dev/null || refuse "needs pgrep (procps)"
for daemon in slurmctld slurmd slurmdbd; do
  ! pgrep -x $daemon >/dev/null || refuse "a Slurm is running here ($daemon); it stays as it is"
done
[ ! -e /etc/slurm/slurm.conf ] || refuse "/etc/slurm/slurm.conf is there; this machine's own Slurm stays as it is"

install() {
  local policy=
  # Their services would start, with no configuration; the daemons are started by hand below.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge
  if [ -n "$policy" ]; then rm -f $policy; fi
}
if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
  log=$(mktemp)
  install >"$log" 2>&1 || refuse "apt-get failed: $(tail -n 1 "$log")"
  rm -f "$log"
fi

here=$(mktemp -d /tmp/snnrobust-slurm.XXXXXX)
chmod 755 "$here"
daemons=()
stop() {
  status=$?
  trap - EXIT INT TERM
  scancel --user root 2>/dev/null || true
  for _ in $(seq 50); do [ -n "$(squeue --noheader 2>/dev/null)" ] && sleep 0.2 || break; done
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill "${daemons[i]}" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ $status -ne 0 ]; then
    tail -n 5 "$here"/*.log >&2 || true
  fi
  for _ in $(seq 50); do pgrep -x slurmstepd >/dev/null && sleep 0.2 || break; done
  rm -rf "$here"
  echo "stopped: munged, slurmctld, slurmd"
  exit $status
}
trap stop EXIT INT TERM

mkdir "$here/state" "$here/spool"
dd if=/dev/urandom of="$here/munge.key" bs=1024 count=1 status=none
chmod 400 "$here/munge.key"
host=$(hostname -s)
cat >"$here/slurm.conf" <<CONF
ClusterName=snnrobust
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge.socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$here/slurm.conf

munged --foreground --force --key-file="$here/munge.key" --socket="$here/munge.socket" --pid-file="$here/munged.pid" \
  --seed-file="$here/munge.seed" --log-file="$here/munged.log" >"$here/munged.out" 2>&1 &
daemons+=($!)
for _ in $(seq 50); do [ -S "$here/munge.socket" ] && break || sleep 0.1; done
slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
daemons+=($!)
slurmd -D -f "$SLURM_CONF" >/dev/null 2>&1 &
daemons+=($!)
for _ in $(seq 100); do [ "$(sinfo --noheader --format %t 2>/dev/null)" = idle ] && break || sleep 0.2; done
[ "$(sinfo --noheader --format %t)" = idle ] || refuse "the node did not come up"
echo "up: $(sinfo --version), one node with $(nproc) cores, no accounting"

.venv/bin/python scripts/prove_slurm.py "$@"
