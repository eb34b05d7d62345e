INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.blocking;

INCLUDE PERFETTO MODULE polletto.code;

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

-- When each thread was first seen to run, or to be woken.
CREATE PERFETTO TABLE _polletto_first_awake AS
SELECT utid, min(ts) AS ts
FROM thread_state
WHERE state IN ('Running', 'R', 'R+')
GROUP BY utid;

CREATE PERFETTO INDEX _polletto_first_awake_by_utid
ON _polletto_first_awake(utid);

-- Of each convoy the longest turn in which a thread held the lock. Who wakes a
-- thread lets the lock go, and held it since it was let go before; but not since
-- before it was awake, who may have slept there when the recording began.
CREATE PERFETTO TABLE _polletto_turns AS
WITH
  woken AS (
    SELECT
      convoy,
      upid,
      waker_tid,
      until,
      coalesce(
        lag(until) OVER (PARTITION BY convoy ORDER BY until, waker_tid),
        min(ts) OVER (PARTITION BY convoy)
      ) AS since
    FROM _polletto_standing
    JOIN _polletto_standing_at_once AS most USING (convoy)
    WHERE most.at_once >= 3
  ),
  held AS (
    SELECT
      woken.convoy,
      woken.waker_tid,
      threads.utid,
      woken.until,
      woken.until
      - min(woken.until, max(woken.since, coalesce(awake.ts, woken.since)))
        AS held_ns
    FROM woken
    LEFT JOIN _polletto_threads AS threads
      ON threads.upid = woken.upid AND threads.tid = woken.waker_tid
    LEFT JOIN _polletto_first_awake AS awake ON awake.utid = threads.utid
    WHERE woken.waker_tid IS NOT NULL
  ),
  ranked AS (
    SELECT
      *,
      row_number() OVER (
        PARTITION BY convoy
        ORDER BY held_ns DESC, waker_tid DESC, until DESC
      ) AS rank
    FROM held
  )
SELECT
  convoy AS id,
  convoy,
  waker_tid AS tid,
  utid,
  until - held_ns AS ts,
  held_ns AS dur
FROM ranked
WHERE rank = 1;

-- The innermost poll in which a thread let the lock go, if that was in one.
CREATE PERFETTO TABLE _polletto_polls_of_holders AS
WITH
  ranked AS (
    SELECT
      overlap.id_0 AS convoy,
      overlap.id_1 AS poll_id,
      row_number() OVER (
        PARTITION BY overlap.id_0
        ORDER BY poll.ts DESC, poll.id DESC
      ) AS rank
    FROM
      _interval_intersect!(
        (
          (
            SELECT id, ts + dur AS ts, 1 AS dur, utid
            FROM _polletto_turns
            WHERE utid IS NOT NULL
          ),
          (
            SELECT id, ts, dur, utid
            FROM _polletto_poll_slices
            WHERE utid IS NOT NULL
          )
        ),
        (utid)
      ) AS overlap
    JOIN _polletto_poll_slices AS poll ON poll.id = overlap.id_1
  )
SELECT convoy, poll_id
FROM ranked
WHERE rank = 1
ORDER BY convoy;

CREATE PERFETTO INDEX _polletto_polls_of_holders_by_convoy
ON _polletto_polls_of_holders(convoy);

-- Where threads were that held a lock for long: by samples, each of which
-- stands for the time before it, and by sleeps.
CREATE PERFETTO TABLE _polletto_found_holding AS
WITH
  found AS (
    SELECT
      task.utid,
      sample.ts - counter.value AS ts,
      counter.value AS dur,
      sample.callsite_id
    FROM stack_sample AS sample
    JOIN stack_sample_task_context AS task ON task.id = sample.task_context_id
    JOIN stack_sample_counter AS counter
      ON counter.stack_sample_id = sample.id
    JOIN track ON track.id = counter.track_id
    WHERE
      sample.source = 'polletto'
      AND track.name = 'cpu-time'
      AND counter.value > 0
      AND task.utid IN (SELECT utid FROM _polletto_turns)
    UNION ALL
    SELECT
      thread_track.utid,
      slice.ts,
      arguments.sleep_ns,
      callstack.callsite_id
    FROM slice
    JOIN thread_track ON thread_track.id = slice.track_id
    JOIN _polletto_arguments AS arguments USING (arg_set_id)
    JOIN __intrinsic_track_event_callstacks AS callstack
      ON callstack.slice_id = slice.id
    WHERE
      slice.category = 'blocked'
      AND arguments.sleep_ns > 0
      AND thread_track.utid IN (SELECT utid FROM _polletto_turns)
  )
SELECT
  row_number() OVER (ORDER BY ts, utid, callsite_id) AS id,
  cast(ts AS INT) AS ts,
  cast(dur AS INT) AS dur,
  utid,
  callsite_id
FROM found;

-- Of each convoy the callstack with which the lock's holder was found for most
-- of its longest turn.
CREATE PERFETTO TABLE _polletto_callstacks_of_holders AS
WITH
  summed AS (
    SELECT
      overlap.id_0 AS convoy,
      found.callsite_id,
      sum(overlap.dur) AS dur
    FROM
      _interval_intersect!(
        (
          (
            SELECT id, ts, dur, utid
            FROM _polletto_turns
            WHERE utid IS NOT NULL AND dur > 0
          ),
          (SELECT id, ts, dur, utid FROM _polletto_found_holding)
        ),
        (utid)
      ) AS overlap
    JOIN _polletto_found_holding AS found ON found.id = overlap.id_1
    GROUP BY convoy, found.callsite_id
  ),
  ranked AS (
    SELECT
      *,
      row_number() OVER (
        PARTITION BY convoy
        ORDER BY dur DESC, callsite_id
      ) AS rank
    FROM summed
  )
SELECT convoy, callsite_id
FROM ranked
WHERE rank = 1
ORDER BY convoy;

CREATE PERFETTO INDEX _polletto_callstacks_of_holders_by_convoy
ON _polletto_callstacks_of_holders(convoy);

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
-- They last as long as somebody slept there.
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
  -- The thread that held the lock longest at a time: who wakes another lets it
  -- go. NULL if nobody of the program was seen to.
  held_by JOINID(thread.id),
  -- Its number in the system.
  held_by_tid LONG,
  -- For how long it held the lock then, while others slept there: not from
  -- before it was first seen awake.
  held_ns LONG,
  -- The poll in which it let the lock go. NULL if it was in none that was seen.
  held_by_poll_id JOINID(slice.id),
  -- The number of the task that was polled there.
  held_by_task_id LONG,
  -- That task's future.
  held_by_future STRING,
  -- The callstack with which it was found for most of that time, running or
  -- asleep. NULL if it was not found then.
  held_callsite_id JOINID(stack_profile_callsite.id),
  -- The innermost function of the program's own code in that, else of all code
  -- outside the kernel, if it has a name.
  held_in STRING,
  -- The file and line that was reached there, as `file:line`, if it is the
  -- program's own.
  held_source STRING,
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
  holder.dur AS held_ns,
  poll_of_holder.id AS held_by_poll_id,
  poll_of_holder.task_id AS held_by_task_id,
  poll_of_holder.future AS held_by_future,
  holding.callsite_id AS held_callsite_id,
  coalesce(
    held_at.own_function,
    -- Code without a name is called `FILE+0xADDRESS`, or for instance `[anon]`.
    iif(
      held_at.function GLOB '*+0x*' OR held_at.function GLOB '[[]*',
      NULL,
      held_at.function
    )
  ) AS held_in,
  held_at.own_source AS held_source,
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
LEFT JOIN _polletto_turns AS holder ON holder.convoy = together.convoy
LEFT JOIN _polletto_polls_of_holders AS of_holder
  ON of_holder.convoy = together.convoy
LEFT JOIN _polletto_poll_slices AS poll_of_holder
  ON poll_of_holder.id = of_holder.poll_id
LEFT JOIN _polletto_callstacks_of_holders AS holding
  ON holding.convoy = together.convoy
LEFT JOIN polletto_callsites AS held_at
  ON held_at.callsite_id = holding.callsite_id
WHERE most.at_once >= 3
ORDER BY together.ts;
