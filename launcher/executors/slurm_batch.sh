# What a job of golf-launch does on its node, outside any container.
#
# 1. Note the attempt; a job that was started too often gives up.
# 2. Run the site's setup lines; one that fails ends the job.
# 3. Run the stage as one step. Warned by USR2 ahead of a time limit or a preemption, hand the
#    warning on; the stage writes its checkpoint and ends.
# 4. A stage that was interrupted, and not cancelled, is put back into the queue. A stage that
#    failed is not: it would fail again.
#
# Set before: name, folders, command, max_attempts, setup().

set -uo pipefail
export USER=${USER:-$(id -un)} # Charliecloud wants it
stage=${folders[${SLURM_ARRAY_TASK_ID:-0}]}
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}

note() { # EVENT [EXIT_CODE]
  local stamp
  printf -v stamp '%(%s)T' -1
  printf '{"event": "%s", "attempt": %d, "job": "%s", "node": "%s", "exit_code": %s, "time": %s}\n' \
    "$1" "$attempt" "$job" "${SLURMD_NODENAME:-$(hostname)}" "${2:-null}" "$stamp" \
    >>"$stage/attempts.jsonl"
  printf '[%(%F %T)T] %s, job %s, attempt %d: %s %s\n' -1 "$name" "$job" "$attempt" "$1" "${2:-}"
}

put_back() {
  note requeued "$1"
  local try
  for try in 1 2 3 4 5 6; do # the controller may be away for a moment
    scontrol requeue "$SLURM_JOB_ID" && sleep 600 # Slurm ends this script
    sleep 10
  done
  note requeue_failed "$1"
}

note started
if ((attempt > max_attempts)); then
  note gave_up
  exit 1
fi

set -eE
trap 'note setup_failed $?' ERR
setup
trap - ERR
set +eE

cancelled=
trap 'cancelled=1' TERM
trap 'note warned; kill -USR2 "$task" 2>/dev/null' USR2
"${command[@]}" "$stage" &
task=$!
while
  wait "$task"
  code=$?
  kill -0 "$task" 2>/dev/null
do :; done

interrupted() { # stopped by USR2 or TERM; also where another node's task was killed, which srun tells
  ((code == 140 || code == 143)) ||
    { ((code == 137)) && grep -q '"state": "cancelled"' "$stage/status.json"; }
}
if interrupted && [[ -z $cancelled ]]; then
  if ((attempt < max_attempts)); then
    put_back "$code"
  else
    note gave_up "$code"
  fi
else
  note ended "$code"
fi
exit "$code"
