INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.overhead;

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
  -- Where it was spawned, if the program tells: `file:line`.
  spawned_at STRING,
  -- Since when it is known to have lived. NULL where only others told of it.
  ts TIMESTAMP,
  -- For how long it is known to have lived.
  dur DURATION,
  -- What `ts` is: `spawned`, or `first seen` if it may be older.
  begins_with STRING,
  -- What its end is: `last poll` if it has ended with that, `last seen` if it
  -- may have lived a little longer, `alive` when the recording ended.
  ends_with STRING,
  -- Of a task that was alive, what it waited for in the end, if that was read.
  waits_for STRING,
  -- How it came to wait for that: a chain of awaits, with lines.
  awaits STRING,
  -- When its first poll began that was seen.
  first_poll_ts TIMESTAMP,
  -- When its last poll began that was seen.
  last_poll_ts TIMESTAMP,
  -- For how long it was known to live after that, or since it is known if no poll
  -- was seen: of the time in which probes told of polls, or of all of it where
  -- there never were any. NULL where only others told of it.
  unpolled_ns LONG,
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
  lives AS (
    SELECT
      *,
      min(ts) OVER whole AS since,
      max(ts + dur) OVER whole AS until,
      first_value(begins_with) OVER whole AS first_begins_with,
      row_number() OVER (PARTITION BY upid, task_id ORDER BY ts DESC) AS from_last
    FROM _polletto_task_slices
    WINDOW
      whole AS (
        PARTITION BY upid, task_id
        ORDER BY ts
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
      )
  ),
  -- One of which nothing was heard for long may have several slices.
  lived AS (SELECT * FROM lives WHERE from_last = 1),
  polled AS (
    SELECT
      upid,
      task_id,
      max(parent) AS parent,
      min(ts) AS first_poll_ts,
      max(ts) AS last_poll_ts,
      max(ts + dur) AS last_poll_end,
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
  ),
  waiting AS MATERIALIZED (
    SELECT
      row_number() OVER (ORDER BY lived.upid, lived.task_id) AS id,
      lived.upid,
      lived.task_id,
      max(lived.since, coalesce(polled.last_poll_end, lived.since)) AS ts,
      max(
        0,
        lived.until
        - max(lived.since, coalesce(polled.last_poll_end, lived.since))
      ) AS dur
    FROM lived
    LEFT JOIN polled USING (upid, task_id)
  ),
  observed AS MATERIALIZED (
    SELECT overlap.id_0 AS id, sum(overlap.dur) AS dur
    FROM
      _interval_intersect!(
        (
          (
            SELECT id, ts, dur, upid
            FROM waiting
            WHERE dur > 0 AND upid IS NOT NULL
          ),
          (
            SELECT id, ts, dur, upid
            FROM _polletto_windows
            WHERE dur > 0 AND upid IS NOT NULL
          )
        ),
        (upid)
      ) AS overlap
    GROUP BY overlap.id_0
  ),
  unpolled AS (
    SELECT
      waiting.upid,
      waiting.task_id,
      iif(
        waiting.upid IN (SELECT upid FROM _polletto_windows),
        coalesce(observed.dur, 0),
        waiting.dur
      ) AS unpolled_ns
    FROM waiting
    LEFT JOIN observed USING (id)
  )
SELECT
  task.upid,
  task.task_id,
  task.name,
  task.future,
  task.written_at,
  coalesce(polled.parent, woken.parent, lived.parent) AS parent,
  spawner.future AS parent_future,
  woken.spawned_ts,
  lived.spawned_at,
  lived.since AS ts,
  lived.until - lived.since AS dur,
  lived.first_begins_with AS begins_with,
  lived.ends_with,
  lived.waits_for,
  lived.awaits,
  polled.first_poll_ts,
  polled.last_poll_ts,
  unpolled.unpolled_ns,
  coalesce(polled.polls, 0) AS polls,
  coalesce(polled.poll_ns, 0) AS poll_ns,
  polled.longest_ns,
  polled.cpu_ns,
  polled.off_cpu_ns,
  polled.runqueue_ns,
  coalesce(woken.wakes, 0) AS wakes,
  woken.longest_wait_ns
FROM _polletto_named_tasks AS task
LEFT JOIN lived USING (upid, task_id)
LEFT JOIN polled USING (upid, task_id)
LEFT JOIN unpolled USING (upid, task_id)
LEFT JOIN woken USING (upid, task_id)
LEFT JOIN _polletto_named_tasks AS spawner
  ON spawner.upid = task.upid
  AND spawner.task_id = coalesce(polled.parent, woken.parent, lived.parent);
