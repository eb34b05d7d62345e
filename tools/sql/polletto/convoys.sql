INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.blocking;

INCLUDE PERFETTO MODULE polletto.polls;

-- Sleeps on the addresses of locks, and the poll of a task that awaits in which
-- one was. Threads for blocking code are there to be blocked.
CREATE PERFETTO TABLE _polletto_lock_sleeps AS
SELECT
  slice.id,
  thread.upid,
  thread.utid,
  arguments.lock,
  slice.ts,
  arguments.sleep_ns AS dur,
  slice.ts + arguments.sleep_ns AS until,
  arguments.waker_tid,
  iif(poll.poll_kind IS NULL, blocking.id, NULL) AS blocking_id
FROM slice
JOIN thread_track ON thread_track.id = slice.track_id
JOIN thread USING (utid)
JOIN _polletto_arguments AS arguments USING (arg_set_id)
LEFT JOIN polletto_blocking AS blocking
  ON blocking.utid = thread.utid AND blocking.ts = slice.ts
LEFT JOIN polletto_polls AS poll ON poll.id = blocking.poll_id
WHERE slice.category = 'blocked' AND arguments.lock IS NOT NULL
ORDER BY slice.ts;

-- Sleeps at one lock between which there was always somebody asleep have the
-- same number.
CREATE PERFETTO TABLE _polletto_standing AS
WITH
  begun AS (
    SELECT
      *,
      ts > coalesce(
        max(until) OVER (
          PARTITION BY upid, lock
          ORDER BY ts, id
          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        -1
      ) AS is_new
    FROM _polletto_lock_sleeps
  )
SELECT
  *,
  sum(is_new) OVER (ORDER BY upid, lock, ts, id) AS convoy
FROM begun;

CREATE PERFETTO TABLE _polletto_standing_at_once AS
WITH
  changes AS (
    SELECT convoy, ts, 1 AS change
    FROM _polletto_standing
    UNION ALL
    -- Who wakes when another falls asleep was not asleep at the same time.
    SELECT convoy, until, -1
    FROM _polletto_standing
  ),
  counted AS (
    SELECT
      convoy,
      sum(change) OVER (
        PARTITION BY convoy
        ORDER BY ts, change
        ROWS UNBOUNDED PRECEDING
      ) AS asleep
    FROM changes
  )
SELECT convoy, max(asleep) AS at_once
FROM counted
GROUP BY convoy;

CREATE PERFETTO INDEX _polletto_standing_at_once_by_convoy
ON _polletto_standing_at_once(convoy);

-- Of each convoy the thread that held the lock longest. Who wakes a thread lets
-- the lock go, and held it since it was let go before.
CREATE PERFETTO TABLE _polletto_holders AS
WITH
  held AS (
    SELECT
      convoy,
      upid,
      waker_tid,
      until - coalesce(
        lag(until) OVER (PARTITION BY convoy ORDER BY until, waker_tid),
        min(ts) OVER (PARTITION BY convoy)
      ) AS held_ns
    FROM _polletto_standing
  ),
  summed AS (
    SELECT
      convoy,
      upid,
      waker_tid,
      sum(held_ns) AS held_ns,
      row_number() OVER (
        PARTITION BY convoy
        ORDER BY sum(held_ns) DESC, waker_tid DESC
      ) AS rank
    FROM held
    WHERE waker_tid IS NOT NULL
    GROUP BY convoy, waker_tid
  )
SELECT
  summed.convoy,
  summed.waker_tid AS tid,
  threads.utid,
  summed.held_ns
FROM summed
LEFT JOIN _polletto_threads AS threads
  ON threads.upid = summed.upid AND threads.tid = summed.waker_tid
WHERE summed.rank = 1;

CREATE PERFETTO INDEX _polletto_holders_by_convoy ON _polletto_holders(convoy);

CREATE PERFETTO TABLE _polletto_convoy_sleeps_in_polls AS
SELECT
  convoy,
  blocking_id,
  dur,
  row_number() OVER (PARTITION BY convoy ORDER BY dur DESC, ts DESC) AS rank
FROM _polletto_standing
WHERE blocking_id IS NOT NULL;

-- Lock convoys: at least three threads of a process that slept on one address
-- at the same time, one of them at least in the poll of a task that awaits.
-- They last as long as somebody slept there. Locks of `parking_lot` are not
-- found, since each thread sleeps on an address of its own there.
CREATE PERFETTO TABLE polletto_convoys(
  -- When the first of them fell asleep.
  ts TIMESTAMP,
  -- How long until the last of them was woken.
  dur DURATION,
  -- The address on which they slept.
  lock LONG,
  -- How many threads there were.
  threads LONG,
  -- And how many of them at the same time, at most.
  at_once LONG,
  -- How often one of them slept.
  sleeps LONG,
  -- How long all of them slept, added up.
  slept_ns LONG,
  -- The thread that held the lock longest: who wakes another lets it go. NULL
  -- if nobody of the program was seen to.
  held_by JOINID(thread.id),
  -- Its number in the system.
  held_by_tid LONG,
  -- For how long it held the lock while others slept there.
  held_ns LONG,
  -- How long the longest of those sleeps was that were in a poll. What follows
  -- is about that one.
  longest_ns LONG,
  -- The sleep's slice on the worker's track.
  blocking_id JOINID(slice.id),
  -- The poll.
  poll_id JOINID(slice.id),
  -- The number of the task that was polled.
  task_id LONG,
  -- That task's future.
  future STRING,
  -- The worker, or a thread that is not known as one.
  worker STRING,
  -- The callstack with which it went to sleep.
  callsite_id JOINID(stack_profile_callsite.id),
  -- The thread.
  utid JOINID(thread.id),
  -- The process.
  upid JOINID(process.id)
)
AS
WITH
  together AS (
    SELECT
      convoy,
      lock,
      min(ts) AS ts,
      max(until) - min(ts) AS dur,
      count(DISTINCT utid) AS threads,
      count() AS sleeps,
      sum(dur) AS slept_ns
    FROM _polletto_standing
    GROUP BY convoy
  )
SELECT
  together.ts,
  together.dur,
  together.lock,
  together.threads,
  most.at_once,
  together.sleeps,
  together.slept_ns,
  holder.utid AS held_by,
  holder.tid AS held_by_tid,
  holder.held_ns,
  longest.dur AS longest_ns,
  longest.blocking_id,
  blocking.poll_id,
  blocking.task_id,
  blocking.future,
  blocking.worker,
  blocking.callsite_id,
  blocking.utid,
  blocking.upid
FROM together
JOIN _polletto_standing_at_once AS most USING (convoy)
JOIN _polletto_convoy_sleeps_in_polls AS longest
  ON longest.convoy = together.convoy AND longest.rank = 1
JOIN polletto_blocking AS blocking ON blocking.id = longest.blocking_id
LEFT JOIN _polletto_holders AS holder ON holder.convoy = together.convoy
WHERE most.at_once >= 3
ORDER BY together.ts;
