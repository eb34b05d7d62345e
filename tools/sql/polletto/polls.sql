INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.arguments;

-- Polls as they are drawn, with their arguments.
CREATE PERFETTO TABLE _polletto_poll_slices AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  slice.name,
  slice.depth,
  slice.track_id,
  tracks.name AS worker,
  tracks.group_name AS runtime,
  tracks.upid,
  threads.utid,
  arguments.tid,
  arguments.task_id,
  arguments.future,
  arguments.name_tier,
  arguments.extent,
  arguments.kind AS poll_kind,
  arguments.written_at,
  arguments.parent,
  arguments.cpu_ns,
  arguments.off_cpu_ns,
  arguments.runqueue_ns
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN _polletto_threads AS threads
  ON threads.upid = tracks.upid AND threads.tid = arguments.tid
WHERE slice.category = 'poll' AND arguments.extent IS NOT NULL
ORDER BY slice.ts;

-- The threads that poll, and what they did when.
CREATE PERFETTO TABLE _polletto_states AS
SELECT
  id,
  ts,
  iif(dur < 0, trace_end() - ts, dur) AS dur,
  utid,
  state
FROM thread_state
WHERE utid IN (SELECT DISTINCT utid FROM _polletto_poll_slices);

-- Which part of which poll a thread spent in which state.
CREATE PERFETTO TABLE _polletto_states_in_polls AS
SELECT
  overlap.id_0 AS poll_id,
  overlap.id_1 AS state_id,
  overlap.ts,
  overlap.dur,
  overlap.utid,
  states.state
FROM
  _interval_intersect!(
    (
      (
        SELECT id, ts, dur, utid
        FROM _polletto_poll_slices
        WHERE utid IS NOT NULL
      ),
      (SELECT id, ts, dur, utid FROM _polletto_states)
    ),
    (utid)
  ) AS overlap
JOIN _polletto_states AS states ON states.id = overlap.id_1;

-- What each poll's time went to, as the states of its thread tell.
CREATE PERFETTO TABLE _polletto_split AS
SELECT
  poll_id,
  sum(iif(state = 'Running', dur, 0)) AS cpu_ns,
  -- `P` is a thread that left its CPU unobserved: what it then did is unknown.
  sum(iif(state NOT IN ('Running', 'R', 'R+', 'P'), dur, 0)) AS off_cpu_ns,
  sum(iif(state IN ('R', 'R+'), dur, 0)) AS runqueue_ns
FROM _polletto_states_in_polls
GROUP BY poll_id
ORDER BY poll_id;

CREATE PERFETTO INDEX _polletto_split_by_poll ON _polletto_split(poll_id);

-- Every poll of a Tokio task that was seen, and what its time went to.
CREATE PERFETTO TABLE polletto_polls(
  -- The poll's slice.
  id ID(slice.id),
  -- When it began.
  ts TIMESTAMP,
  -- How long it lasted; without an end, until the trace's. What follows by
  -- nanoseconds adds up to less where the thread was not observed.
  dur DURATION,
  -- Time in which the thread ran. NULL if nothing is known of the thread.
  cpu_ns LONG,
  -- Time in which the thread slept.
  off_cpu_ns LONG,
  -- Time in which the thread could have run, but had no CPU: after it was
  -- woken, and when it had to make room for another.
  runqueue_ns LONG,
  -- The task's number in its process, as Tokio gives it.
  task_id LONG,
  -- The task's future, shortened.
  name STRING,
  -- The future's whole type.
  future STRING,
  -- What the future's name was told from: `dwarf`, `symbol`, `drop-glue`,
  -- `location` or `vtable`.
  name_tier STRING,
  -- Where the future is written, if that is known.
  written_at STRING,
  -- The number of the task that spawned this one, if that was seen.
  parent LONG,
  -- `exact` if both ends were seen, `at least` if it lasted longer than shown,
  -- `until block in place` if it then gave its worker away: see
  -- `polletto_blocks_in_place`.
  extent STRING,
  -- `blocking closure` for one of `spawn_blocking`, `blocked in place` if the
  -- poll gave its worker away, nobody knows when; else NULL.
  poll_kind STRING,
  -- How many polls or other slices it stands in: 0 but for polls within polls.
  depth LONG,
  -- The worker, such as `worker 0`, or a thread that is not known as one.
  worker STRING,
  -- The group of the worker's track, which stands for its runtime.
  runtime STRING,
  -- The worker's track.
  track_id JOINID(track.id),
  -- The thread that polled.
  utid JOINID(thread.id),
  -- The thread's number in the system.
  tid LONG,
  -- The process.
  upid JOINID(process.id)
)
AS
SELECT
  poll.id,
  poll.ts,
  poll.dur,
  coalesce(poll.cpu_ns, split.cpu_ns) AS cpu_ns,
  coalesce(poll.off_cpu_ns, split.off_cpu_ns) AS off_cpu_ns,
  coalesce(poll.runqueue_ns, split.runqueue_ns) AS runqueue_ns,
  poll.task_id,
  poll.name,
  poll.future,
  poll.name_tier,
  poll.written_at,
  poll.parent,
  poll.extent,
  poll.poll_kind,
  poll.depth,
  poll.worker,
  poll.runtime,
  poll.track_id,
  poll.utid,
  poll.tid,
  poll.upid
FROM _polletto_poll_slices AS poll
LEFT JOIN _polletto_split AS split ON split.poll_id = poll.id
ORDER BY poll.ts;

-- Tasks as they are drawn, from their beginnings to their ends.
CREATE PERFETTO TABLE _polletto_task_slices AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  slice.name,
  tracks.upid,
  arguments.task_id,
  arguments.future,
  arguments.written_at,
  arguments.spawned_at,
  arguments.parent,
  arguments.begins_with,
  arguments.ends_with,
  arguments.waits_for,
  arguments.awaits
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
WHERE slice.category = 'task' AND arguments.task_id IS NOT NULL
ORDER BY slice.ts;

-- What tasks are, by all that names them.
CREATE PERFETTO TABLE _polletto_named_tasks AS
WITH named AS (
  SELECT upid, task_id, name, future, written_at
  FROM _polletto_poll_slices
  UNION ALL
  -- A task that was woken may never have been polled.
  SELECT
    tracks.upid, arguments.task_id, NULL, arguments.future, arguments.written_at
  FROM slice
  JOIN _polletto_arguments AS arguments USING (arg_set_id)
  JOIN _polletto_tracks AS tracks USING (track_id)
  WHERE slice.category IN ('wake', 'spawn')
  UNION ALL
  -- Nor may one that was only found in a list, or that waits.
  SELECT upid, task_id, name, future, written_at
  FROM _polletto_task_slices
)
SELECT
  upid,
  task_id,
  max(name) AS name,
  max(future) AS future,
  max(written_at) AS written_at
FROM named
WHERE task_id IS NOT NULL
GROUP BY upid, task_id;

CREATE PERFETTO INDEX _polletto_named_tasks_by_id
ON _polletto_named_tasks(upid, task_id);
