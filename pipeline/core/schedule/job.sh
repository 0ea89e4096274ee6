#!/bin/bash
# What a job of Slurm runs: the stage's command, given as arguments.
#
#   0        done
#   75       back into the queue. A time limit that comes near (USR1 from Slurm) is SIGTERM for the stage, which writes a
#            checkpoint and ends so; under torchrun it ends with 1, and goes back too
#   another  back into the queue and held there, so that the jobs that wait for this one go on waiting: the same make
#            releases it, once what its log says is mended. So is a stage without checkpoints that had no time to end
#            (130): it would begin anew for ever
#
# A job that is cancelled, preempted or requeued gets SIGTERM from Slurm, the stage too; Slurm decides what becomes of it.

# Where processes on several machines meet; torchrun takes these.
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  export PET_RDZV_ID=$SLURM_JOB_ID
  export PET_RDZV_ENDPOINT=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 20000))
fi

# A progress bar is a line a minute here, not ten a second.
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-60}

limit_near=
"$@" &
stage=$!
trap 'limit_near=yes; kill -TERM $stage 2>/dev/null' USR1
trap : TERM

# A trap ends `wait` before the stage has ended.
wait $stage
status=$?
while kill -0 $stage 2>/dev/null; do
  wait $stage
  status=$?
done
test $status = 0 && exit 0

# Only a job that nobody has taken away says itself what becomes of it.
test "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING || exit $status
if [ $status = 75 ] || { [ -n "$limit_near" ] && [ $status = 1 ]; }; then
  scontrol requeue "$SLURM_JOB_ID"
else
  scontrol requeuehold "$SLURM_JOB_ID"
fi
exit $status
