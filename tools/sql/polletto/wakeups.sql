INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.polls;

-- When the task's poll before this one ended: until then a task that was woken
-- could not be polled again.
CREATE PERFETTO TABLE _polletto_poll_before AS
SELECT
  id AS poll_id,
  ts,
  lag(ts + dur) OVER (PARTITION BY upid, task_id ORDER BY ts) AS before_end
FROM _polletto_poll_slices
ORDER BY id;

CREATE PERFETTO INDEX _polletto_poll_before_by_id
ON _polletto_poll_before(poll_id);

-- Arrows that lead to polls. An arrow starts at one instant alone.
CREATE PERFETTO TABLE _polletto_arrows AS
SELECT
  flow.slice_out AS instant_id,
  min(next.poll_id) AS poll_id,
  min(next.ts) AS poll_ts,
  max(next.before_end) AS before_end
FROM flow
JOIN _polletto_poll_before AS next ON next.poll_id = flow.slice_in
GROUP BY flow.slice_out;

CREATE PERFETTO INDEX _polletto_arrows_by_instant
ON _polletto_arrows(instant_id);

-- Every time that a task was seen to be woken or spawned: by whom, and how long
-- it then waited for its poll.
CREATE PERFETTO TABLE polletto_wakeups(
  -- The instant's slice.
  id ID(slice.id),
  -- When it happened.
  ts TIMESTAMP,
  -- `wake` or `spawn`.
  kind STRING,
  -- The number of the task that was woken or spawned.
  task_id LONG,
  -- That task's future.
  future STRING,
  -- The number of the task that did it; NULL if none was polled there.
  waker_task_id LONG,
  -- That task's future.
  waker_future STRING,
  -- The poll in which it was done, if it was in one.
  waker_poll_id JOINID(slice.id),
  -- The worker on which it was done, or a thread that polled nothing then.
  waker_worker STRING,
  -- The thread that did it.
  waker_utid JOINID(thread.id),
  -- The poll that it led to. NULL if none was seen.
  poll_id JOINID(slice.id),
  -- When that poll began.
  poll_ts TIMESTAMP,
  -- How long after the waking that was.
  delay_ns LONG,
  -- How much of that the task was ready to be polled. Less than the delay if it
  -- was woken in the middle of a poll of its own.
  wait_ns LONG,
  -- The process.
  upid JOINID(process.id)
)
AS
SELECT
  slice.id,
  slice.ts,
  slice.category AS kind,
  arguments.task_id,
  arguments.future,
  coalesce(arguments.waker_task_id, arguments.parent) AS waker_task_id,
  waker.future AS waker_future,
  slice.parent_id AS waker_poll_id,
  tracks.name AS waker_worker,
  threads.utid AS waker_utid,
  arrow.poll_id,
  arrow.poll_ts,
  arrow.poll_ts - slice.ts AS delay_ns,
  -- A thread may lose its CPU when it is done with a task and another already
  -- polls it: then its poll ends after the next has begun.
  max(
    0,
    arrow.poll_ts - max(slice.ts, coalesce(arrow.before_end, slice.ts))
  ) AS wait_ns,
  tracks.upid
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN _polletto_threads AS threads
  ON threads.upid = tracks.upid AND threads.tid = arguments.tid
LEFT JOIN _polletto_arrows AS arrow ON arrow.instant_id = slice.id
LEFT JOIN _polletto_named_tasks AS waker
  ON waker.upid = tracks.upid
  AND waker.task_id = coalesce(arguments.waker_task_id, arguments.parent)
WHERE
  slice.category IN ('wake', 'spawn') AND arguments.task_id IS NOT NULL
ORDER BY slice.ts;
