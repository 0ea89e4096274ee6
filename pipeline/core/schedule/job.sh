#!/bin/bash
# What a job of Slurm runs: the seconds of notice that Slurm gives before the time limit, and the stage's command. By the
# stage's exit status the job
#
#   0        is done
#   75       goes back into the queue. A time limit that comes near (USR1 from Slurm) is SIGTERM for the stage, which
#            writes a checkpoint and ends so
#   130, 143 goes back too: SIGTERM met a stage, or a moment, without checkpoints
#   another  goes back and is held there, so that the jobs that wait for it go on waiting: the same make releases it,
#            once what its log says is mended. So does a stage that the limit leaves nothing to go on from: it would begin
#            anew for ever
#
# A job that is cancelled or requeued gets SIGTERM from Slurm, the stage too, and Slurm decides what becomes of it; so does
# one that is preempted and has not gone back by itself when its grace is over.

notice=$1
shift

# Where processes on several machines meet; torchrun takes these. srun takes no cores from the job by itself.
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
  export PET_RDZV_ID=$SLURM_JOB_ID
  export PET_RDZV_ENDPOINT=${address:-$first}:$((20000 + SLURM_JOB_ID % 20000))
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
fi
# A progress bar is a line a minute here, not ten a second.
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-60}

hold() {
  echo "error: the time limit ended this stage with nothing to go on from: make cancel, more time in the site file, again"
  scontrol requeuehold "$SLURM_JOB_ID"
}
near_limit() {
  kill -TERM $stage 2>/dev/null
  # One that is preempted comes near its end too, but for no fault of its own.
  squeue --noheader --jobs "$SLURM_JOB_ID" --Format PreemptTime | grep -q '[0-9]' && return
  # Before Slurm ends it by force, and with it those that wait for it.
  { sleep $((notice * 3 / 4)) >/dev/null && hold; } &
  holder=$!
}

holder=
trap near_limit USR1
trap : TERM
"$@" &
stage=$!

# A trap ends `wait` before the stage has ended.
wait $stage
status=$?
while kill -0 $stage 2>/dev/null; do
  wait $stage
  status=$?
done
test -z "$holder" || kill $holder 2>/dev/null
test $status = 0 && exit 0

# Only a job that nobody has taken away says itself what becomes of it.
test "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING || exit $status
case $status,$holder in
  75,* | 130, | 143,) scontrol requeue "$SLURM_JOB_ID" ;;
  *,) scontrol requeuehold "$SLURM_JOB_ID" ;;
  *) hold ;;
esac
exit $status
