INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.polls;

-- What tasks waited for between their polls, of recordings with
-- `--await-stacks HZ`. What each waited for when a recording ended is in
-- `polletto_tasks`.
CREATE PERFETTO TABLE polletto_awaits(
  -- The slice that shows it.
  id JOINID(slice.id),
  -- Since when.
  ts TIMESTAMP,
  -- For how long.
  dur DURATION,
  -- The process.
  upid JOINID(process.id),
  -- The task's number in its process, as Tokio gives it.
  task_id LONG,
  -- The task's future, shortened.
  name STRING,
  -- The future's whole type.
  future STRING,
  -- What is at the end of the chain: a timer, a lock, a channel, a socket.
  waits_for STRING,
  -- The chain of awaits from the task's own future on, with lines.
  awaits STRING,
  -- `exact` from one poll to the next; `at least` as long as it was found so.
  extent STRING
)
AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  tracks.upid,
  arguments.task_id,
  task.name,
  task.future,
  arguments.waits_for,
  arguments.awaits,
  arguments.extent
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN _polletto_named_tasks AS task
  ON task.upid = tracks.upid AND task.task_id = arguments.task_id
WHERE slice.category = 'await'
ORDER BY slice.ts;
