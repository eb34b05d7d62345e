INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.polls;

-- Where closures that may block were spawned. An arrow leads from each to the
-- poll that runs it.
CREATE PERFETTO TABLE _polletto_closure_spawns AS
SELECT
  slice.id,
  slice.ts,
  slice.parent_id,
  arguments.task_id,
  arguments.future,
  arguments.parent,
  tracks.upid,
  min(flow.slice_in) AS poll_id
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN flow ON flow.slice_out = slice.id
WHERE slice.category = 'spawn blocking' AND arguments.task_id IS NOT NULL
GROUP BY slice.id;

-- Every closure that may block, as `spawn_blocking` takes them, that was seen to
-- be spawned or to run.
CREATE PERFETTO TABLE polletto_closures(
  -- The process.
  upid JOINID(process.id),
  -- The number that Tokio gives it, as if it were a task.
  task_id LONG,
  -- What it is: its whole type, or where it is written.
  future STRING,
  -- When it was spawned. NULL if that was not seen.
  spawned_ts TIMESTAMP,
  -- The instant that tells of that.
  spawn_id JOINID(slice.id),
  -- The number of the task that spawned it; NULL if none was polled there.
  parent LONG,
  -- How long it waited for a thread. NULL if its spawn or its beginning was not
  -- seen.
  queued_ns LONG,
  -- When it began to run. NULL if that was not seen: the runtime's own, of
  -- which each worker is one, never are.
  ts TIMESTAMP,
  -- How long it ran.
  dur DURATION,
  -- The poll that ran it.
  poll_id JOINID(slice.id),
  -- The thread that ran it.
  utid JOINID(thread.id)
)
AS
WITH ran AS (SELECT * FROM polletto_polls WHERE poll_kind = 'blocking closure')
SELECT
  spawned.upid,
  spawned.task_id,
  spawned.future,
  spawned.ts AS spawned_ts,
  spawned.id AS spawn_id,
  spawned.parent,
  ran.ts - spawned.ts AS queued_ns,
  ran.ts,
  ran.dur,
  ran.id AS poll_id,
  ran.utid
FROM _polletto_closure_spawns AS spawned
LEFT JOIN ran ON ran.id = spawned.poll_id
UNION ALL
SELECT
  ran.upid,
  ran.task_id,
  ran.future,
  NULL,
  NULL,
  ran.parent,
  NULL,
  ran.ts,
  ran.dur,
  ran.id,
  ran.utid
FROM ran
WHERE
  ran.id NOT IN (
    SELECT poll_id FROM _polletto_closure_spawns WHERE poll_id IS NOT NULL
  );

-- Every stretch in which a poll had given its worker away, to block in place:
-- from then on to its end. A poll that got its worker back has none. Where it
-- is not seen when the worker was given away, as in debug builds, it is all of
-- the poll.
CREATE PERFETTO TABLE polletto_blocks_in_place(
  -- The slice, which is on the thread's track.
  id ID(slice.id),
  -- When it gave its worker away, or when the poll began if nobody knows when.
  ts TIMESTAMP,
  -- How long until the poll ended.
  dur DURATION,
  -- 1 if it is all of the poll, since nobody knows when in it the worker was
  -- given away; else 0.
  is_whole_poll LONG,
  -- The number of the task that blocked.
  task_id LONG,
  -- That task's future.
  future STRING,
  -- For how much of that the thread ran. NULL if it ran all the time.
  cpu_ns LONG,
  -- For how much of that the thread slept.
  off_cpu_ns LONG,
  -- For how much of that the thread could have run, but had no CPU.
  runqueue_ns LONG,
  -- The thread.
  utid JOINID(thread.id),
  -- The process.
  upid JOINID(process.id)
)
AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  slice.category = 'poll' AS is_whole_poll,
  arguments.task_id,
  arguments.future,
  arguments.cpu_ns,
  arguments.off_cpu_ns,
  arguments.runqueue_ns,
  threads.utid,
  tracks.upid
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN _polletto_threads AS threads
  ON threads.upid = tracks.upid AND threads.tid = arguments.tid
-- The instants on workers' tracks have no extent.
WHERE
  arguments.extent IS NOT NULL
  AND (
    slice.category = 'block in place'
    OR (slice.category = 'poll' AND arguments.kind = 'blocked in place')
  )
ORDER BY slice.ts;
