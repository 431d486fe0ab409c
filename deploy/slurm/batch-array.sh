#!/bin/bash
# A batch as a Slurm array: sbatch --array=0-7 batch-array.sh SLIDES BUNDLE OUT [further options of batch]
# All tasks write into one OUT on a shared file system. A task that is preempted (SIGTERM) exits with 75 and
# is put back into the queue; it resumes where it stopped.
#SBATCH --job-name=stamp
#SBATCH --cpus-per-task=2
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
# On GPU nodes: #SBATCH --gres=gpu:1
set -u
slides=$1 bundle=$2 out=$3
shift 3

# exec-less on purpose: the shell waits for the child so that it can requeue the task.
srun stamp-deploy batch "$slides" --bundle "$bundle" -o "$out" \
    --shard "${SLURM_ARRAY_TASK_ID}/${SLURM_ARRAY_TASK_COUNT}" "$@"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
