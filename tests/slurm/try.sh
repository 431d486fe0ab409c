#!/bin/bash
# Runs deploy/slurm/batch-array.sh on a real Slurm of one node, started for this and stopped afterwards.
#
#   sudo tests/slurm/try.sh SLIDES BUNDLE        (Debian or Ubuntu; `stamp-deploy` must be on the PATH)
#
# An array of three tasks shares the slides. One task gets SIGTERM while it works, as when it is preempted; it must
# exit with 75, be requeued and finish. Prints what happened; the exit code is 0 when every slide is done once.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,7p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "root rights are needed to start slurmd"; exit 2; }
slides=$(realpath "$1") bundle=$(realpath "$2")
example=$(realpath "$(dirname "$0")/../../deploy/slurm/batch-array.sh")
command -v stamp-deploy >/dev/null || { echo "stamp-deploy is not on the PATH"; exit 2; }
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

work=$(mktemp -d /tmp/stamp-slurm-XXXXXX)
chmod 755 "$work"
pids=()
stop() {
    scancel --quiet --name=stamp 2>/dev/null || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

node=$(hostname -s)
dd if=/dev/urandom of="$work/munge.key" bs=128 count=1 status=none
chmod 600 "$work/munge.key"
munged --force --foreground --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" \
    --seed-file="$work/munge.seed" --log-file="$work/munged.log" >"$work/munged.out" 2>&1 &
pids+=($!)
mkdir "$work/state" "$work/spool"
cat >"$work/slurm.conf" <<EOF
ClusterName=try
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
# A requeued task waits for a second or two instead of minutes.
SchedulerParameters=batch_sched_delay=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=try Nodes=$node Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$work/slurm.conf
sleep 1
slurmctld -D >"$work/slurmctld.out" 2>&1 &
pids+=($!)
slurmd -D -N "$node" >"$work/slurmd.out" 2>&1 &
pids+=($!)
for _ in $(seq 30); do
    sinfo -h -o %T 2>/dev/null | grep -q '^idle' && break
    sleep 1
done
sinfo -h -o %T | grep -q '^idle' || { echo "the node did not come up"; tail -n 20 "$work"/*.log; exit 1; }
echo "slurm $(slurmctld -V | cut -d' ' -f2), node $node with $(nproc) CPUs"

job=$(sbatch --parsable --array=0-2 --cpus-per-task=1 --chdir="$work" --output="$work/task-%a.log" \
    "$example" "$slides" "$bundle" "$work/out" --engine onnxruntime --write json,hdf5)
echo "array $job submitted"

# Preempt the first task that has begun to score: the step gets SIGTERM, as from a scheduler.
preempted=""
for _ in $(seq 600); do
    if [ -z "$preempted" ] && grep -q '"event": "planned"' "$work"/task-*.log 2>/dev/null; then
        preempted=$(grep -l '"event": "planned"' "$work"/task-*.log | head -n 1 | sed 's/.*task-\([0-9]*\)\.log/\1/')
        sleep 1
        scancel --signal=TERM "${job}_$preempted" && echo "task $preempted: SIGTERM sent"
    fi
    [ -n "$(squeue -h -j "$job" 2>/dev/null)" ] || break
    sleep 1
done

echo "--- tasks"
for log in "$work"/task-*.log; do
    echo "$(basename "$log"): $(grep -c '"event": "planned"' "$log") starts, exit codes $(grep -o '"exit_code": [0-9]*' "$log" | cut -d' ' -f2 | tr '\n' ' ')"
done
reports=("$work"/out/batch-shard-*-of-3.json)
python3 - "${reports[@]}" <<'EOF'
import json, sys
rows = [row for path in sys.argv[1:] for row in json.load(open(path))["slides"]]
states = sorted(row["state"] for row in rows)
print(f"{len(sys.argv) - 1} reports, {len(rows)} slides: {', '.join(f'{states.count(s)} {s}' for s in sorted(set(states)))}")
names = [row["key"] for row in rows]
assert len(sys.argv) - 1 == 3 and len(names) == len(set(names)) and set(states) == {"done"}
EOF
results=$(find "$work/out" -mindepth 2 -maxdepth 2 -name DONE | wc -l)
left=$(find "$work/out" -maxdepth 1 -name '.partial-*' | wc -l)
echo "$results finished results, $left leftovers"
grep -q '"exit_code": 75' "$work/task-$preempted.log" || { echo "the preempted task did not stop with 75"; exit 1; }
[ "$left" = 0 ] && echo "passed"
