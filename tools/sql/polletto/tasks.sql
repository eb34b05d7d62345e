INCLUDE PERFETTO MODULE polletto.polls;

INCLUDE PERFETTO MODULE polletto.wakeups;

-- Every task that was seen: polled, woken or spawned.
CREATE PERFETTO TABLE polletto_tasks(
  -- The process.
  upid JOINID(process.id),
  -- The task's number in its process, as Tokio gives it.
  task_id LONG,
  -- The task's future, shortened. NULL if it was never seen in a poll.
  name STRING,
  -- The future's whole type.
  future STRING,
  -- Where the future is written, if that is known.
  written_at STRING,
  -- The number of the task that spawned it, if that was seen.
  parent LONG,
  -- That task's future.
  parent_future STRING,
  -- When it was spawned, if that was seen.
  spawned_ts TIMESTAMP,
  -- When its first poll began that was seen.
  first_poll_ts TIMESTAMP,
  -- When its last poll began that was seen.
  last_poll_ts TIMESTAMP,
  -- How often it was polled, as far as that was seen.
  polls LONG,
  -- How long its polls lasted in all.
  poll_ns LONG,
  -- How long the longest lasted.
  longest_ns LONG,
  -- For how much of its polls its thread ran.
  cpu_ns LONG,
  -- For how much of its polls its thread slept.
  off_cpu_ns LONG,
  -- For how much of its polls its thread could have run, but had no CPU.
  runqueue_ns LONG,
  -- How often it was woken, as far as that was seen.
  wakes LONG,
  -- The longest that it waited for its poll, ready to be polled.
  longest_wait_ns LONG
)
AS
WITH
  polled AS (
    SELECT
      upid,
      task_id,
      max(parent) AS parent,
      min(ts) AS first_poll_ts,
      max(ts) AS last_poll_ts,
      count() AS polls,
      sum(dur) AS poll_ns,
      max(dur) AS longest_ns,
      sum(cpu_ns) AS cpu_ns,
      sum(off_cpu_ns) AS off_cpu_ns,
      sum(runqueue_ns) AS runqueue_ns
    FROM polletto_polls
    GROUP BY upid, task_id
  ),
  woken AS (
    SELECT
      upid,
      task_id,
      max(iif(kind = 'spawn', waker_task_id, NULL)) AS parent,
      min(iif(kind = 'spawn', ts, NULL)) AS spawned_ts,
      sum(kind = 'wake') AS wakes,
      max(wait_ns) AS longest_wait_ns
    FROM polletto_wakeups
    GROUP BY upid, task_id
  )
SELECT
  task.upid,
  task.task_id,
  task.name,
  task.future,
  task.written_at,
  coalesce(polled.parent, woken.parent) AS parent,
  spawner.future AS parent_future,
  woken.spawned_ts,
  polled.first_poll_ts,
  polled.last_poll_ts,
  coalesce(polled.polls, 0) AS polls,
  coalesce(polled.poll_ns, 0) AS poll_ns,
  polled.longest_ns,
  polled.cpu_ns,
  polled.off_cpu_ns,
  polled.runqueue_ns,
  coalesce(woken.wakes, 0) AS wakes,
  woken.longest_wait_ns
FROM _polletto_named_tasks AS task
LEFT JOIN polled USING (upid, task_id)
LEFT JOIN woken USING (upid, task_id)
LEFT JOIN _polletto_named_tasks AS spawner
  ON spawner.upid = task.upid
  AND spawner.task_id = coalesce(polled.parent, woken.parent);
