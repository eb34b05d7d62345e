INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.polls;

-- Sleeps as they are drawn under threads, which tell more than those in polls.
CREATE PERFETTO TABLE _polletto_sleeps AS
SELECT
  thread_track.utid,
  slice.ts,
  arguments.state,
  arguments.waker_tid,
  arguments.lock
FROM slice
JOIN thread_track ON thread_track.id = slice.track_id
JOIN _polletto_arguments AS arguments USING (arg_set_id)
WHERE slice.category = 'blocked';

CREATE PERFETTO INDEX _polletto_sleeps_by_time ON _polletto_sleeps(utid, ts);

-- Every stretch in which a thread slept in the middle of a poll, as far as it
-- was long enough for its stack to be told (`--min-block`).
CREATE PERFETTO TABLE polletto_blocking(
  -- The slice.
  id ID(slice.id),
  -- When the thread left its CPU.
  ts TIMESTAMP,
  -- How long until it ran again.
  dur DURATION,
  -- `S` for sleep, `D` for sleep that signals do not end, as for a disk.
  state STRING,
  -- How long the thread slept.
  sleep_ns LONG,
  -- How long it then waited for a CPU.
  runqueue_ns LONG,
  -- What it waited for: see `polletto_callsites`.
  waited_for STRING,
  -- The number of the thread that woke it, if that was one of the program's.
  waker_tid LONG,
  -- The address on which it slept in the system call `futex`: a lock's, or that
  -- of something else that is made of one. Of `parking_lot`, whose threads sleep
  -- on addresses of their own, that of what they wait for.
  lock LONG,
  -- The poll.
  poll_id JOINID(slice.id),
  -- The number of the task that was polled.
  task_id LONG,
  -- That task's future.
  future STRING,
  -- The worker, or a thread that is not known as one.
  worker STRING,
  -- The thread.
  utid JOINID(thread.id),
  -- The process.
  upid JOINID(process.id),
  -- The callstack with which it went to sleep.
  callsite_id JOINID(stack_profile_callsite.id),
  -- Its innermost function outside the kernel.
  function STRING,
  -- The innermost function of the program's own code, if that is known.
  own_function STRING,
  -- The file and line that was reached there, as `file:line`.
  own_source STRING
)
AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  coalesce(arguments.state, sleep.state) AS state,
  arguments.sleep_ns,
  arguments.runqueue_ns,
  coalesce(arguments.waited_for, callsite.waited_for) AS waited_for,
  sleep.waker_tid,
  sleep.lock,
  poll.id AS poll_id,
  poll.task_id,
  poll.future,
  poll.worker,
  poll.utid,
  poll.upid,
  callstack.callsite_id,
  callsite.function,
  callsite.own_function,
  callsite.own_source
FROM slice
JOIN polletto_polls AS poll ON poll.id = slice.parent_id
LEFT JOIN _polletto_arguments AS arguments USING (arg_set_id)
LEFT JOIN _polletto_sleeps AS sleep
  ON sleep.utid = poll.utid AND sleep.ts = slice.ts
LEFT JOIN __intrinsic_track_event_callstacks AS callstack
  ON callstack.slice_id = slice.id
LEFT JOIN polletto_callsites AS callsite USING (callsite_id)
WHERE slice.category = 'blocked'
ORDER BY slice.ts;
