INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.polls;

INCLUDE PERFETTO MODULE polletto.samples;

INCLUDE PERFETTO MODULE polletto.wakeups;

-- What a sleep with a callstack was for, as the recorder tells it of those in
-- polls: system calls say so where no function does.
CREATE PERFETTO TABLE _polletto_told_callsites AS
SELECT callstack.callsite_id, max(arguments.waited_for) AS wait
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
JOIN __intrinsic_track_event_callstacks AS callstack
  ON callstack.slice_id = slice.id
WHERE slice.category = 'blocked' AND arguments.waited_for IS NOT NULL
GROUP BY callstack.callsite_id;

CREATE PERFETTO INDEX _polletto_told_callsites_by_id
ON _polletto_told_callsites(callsite_id);

CREATE PERFETTO TABLE _polletto_weights AS
SELECT
  seen.poll_id,
  seen.callsite_id,
  coalesce(told.wait, callsite.waited_for) AS wait,
  -- Where the program itself was, or which crate if nothing is its own.
  -- Samples seldom have the same callstack twice, but often the same of these.
  -- Where neither is known, what all programs call tells nothing.
  coalesce(callsite.own_function, callsite.crate, '#' || seen.callsite_id)
    AS place,
  coalesce(callsite.own_function, '#' || seen.callsite_id) AS slept_place,
  min(seen.ts) AS ts,
  sum(seen.cpu_ns) AS cpu_ns,
  sum(seen.off_cpu_ns) AS off_cpu_ns
FROM _polletto_samples_in_polls AS seen
JOIN polletto_callsites AS callsite USING (callsite_id)
LEFT JOIN _polletto_told_callsites AS told USING (callsite_id)
GROUP BY seen.poll_id, seen.callsite_id;

-- Of each poll the callstack that ran most. Samples mostly stand for as much: of
-- several the one that came last, as the recorder tells it, since polls begin
-- with what prepares the rest.
CREATE PERFETTO TABLE _polletto_ran_most AS
WITH
  summed AS (
    SELECT
      *,
      sum(cpu_ns) OVER (PARTITION BY poll_id, place) AS place_ns
    FROM _polletto_weights
    WHERE cpu_ns > 0
  ),
  ranked AS (
    SELECT
      poll_id,
      callsite_id,
      row_number() OVER (
        PARTITION BY poll_id
        ORDER BY place_ns DESC, cpu_ns DESC, ts DESC, callsite_id
      ) AS rank
    FROM summed
  )
SELECT poll_id, callsite_id
FROM ranked
WHERE rank = 1
ORDER BY poll_id;

CREATE PERFETTO INDEX _polletto_ran_most_by_poll ON _polletto_ran_most(poll_id);

-- Of each poll the callstack that slept most, for what it slept for most, and
-- how long it did so for that in the same place.
CREATE PERFETTO TABLE _polletto_slept_most AS
WITH
  summed AS (
    SELECT
      *,
      sum(off_cpu_ns) OVER (PARTITION BY poll_id, wait) AS wait_ns,
      sum(off_cpu_ns) OVER (PARTITION BY poll_id, wait, slept_place) AS place_ns
    FROM _polletto_weights
    WHERE off_cpu_ns > 0
  ),
  ranked AS (
    SELECT
      poll_id,
      callsite_id,
      wait,
      place_ns,
      row_number() OVER (
        PARTITION BY poll_id
        ORDER BY wait_ns DESC, wait, place_ns DESC, off_cpu_ns DESC, callsite_id
      ) AS rank
    FROM summed
  )
SELECT poll_id, callsite_id, wait, cast(place_ns AS INT) AS place_ns
FROM ranked
WHERE rank = 1
ORDER BY poll_id;

CREATE PERFETTO INDEX _polletto_slept_most_by_poll
ON _polletto_slept_most(poll_id);

-- Which thread ran most while a thread had to wait for a CPU in a poll. Waits
-- of less than half a millisecond preempt nobody for long.
CREATE PERFETTO TABLE _polletto_waits_for_cpu AS
SELECT
  row_number() OVER (ORDER BY poll_id, ts) AS id,
  ts,
  dur,
  poll_id,
  utid
FROM _polletto_states_in_polls
WHERE state IN ('R', 'R+') AND dur >= 500000;

CREATE PERFETTO TABLE _polletto_ran_meanwhile AS
WITH
  ran AS (
    SELECT
      waiting.poll_id,
      coalesce(thread.name, 'thread ' || thread.tid) AS name,
      sum(overlap.dur) AS dur
    FROM
      _interval_intersect!(
        (
          (SELECT id, ts, dur FROM _polletto_waits_for_cpu),
          (
            SELECT sched.id, sched.ts, sched.dur
            FROM sched
            JOIN thread USING (utid)
            WHERE sched.dur > 0 AND NOT thread.is_idle
          )
        ),
        ()
      ) AS overlap
    JOIN _polletto_waits_for_cpu AS waiting ON waiting.id = overlap.id_0
    JOIN sched ON sched.id = overlap.id_1
    JOIN thread ON thread.utid = sched.utid
    GROUP BY waiting.poll_id, thread.utid
  ),
  ranked AS (
    SELECT
      *,
      row_number() OVER (PARTITION BY poll_id ORDER BY dur DESC, name) AS rank
    FROM ran
  )
SELECT poll_id, name
FROM ranked
WHERE rank = 1
ORDER BY poll_id;

CREATE PERFETTO INDEX _polletto_ran_meanwhile_by_poll
ON _polletto_ran_meanwhile(poll_id);

-- What the thread that polled a task in the end did most while the task was
-- ready: for those that waited at least half a millisecond.
CREATE PERFETTO TABLE _polletto_long_waits AS
SELECT
  woken.id,
  woken.poll_ts - woken.wait_ns AS ts,
  woken.wait_ns AS dur,
  poll.utid
FROM polletto_wakeups AS woken
JOIN _polletto_poll_slices AS poll ON poll.id = woken.poll_id
WHERE woken.wait_ns >= 500000 AND poll.utid IS NOT NULL;

CREATE PERFETTO TABLE _polletto_did_meanwhile AS
WITH
  summed AS (
    SELECT
      overlap.id_0 AS wakeup_id,
      CASE
        WHEN states.state = 'Running' THEN 'its worker ran'
        WHEN states.state IN ('R', 'R+') THEN 'its worker had no CPU'
        WHEN states.state = 'P' THEN 'its worker was not observed'
        ELSE 'its worker slept'
      END AS did,
      sum(overlap.dur) AS dur
    FROM
      _interval_intersect!(
        (
          (SELECT id, ts, dur, utid FROM _polletto_long_waits),
          (SELECT id, ts, dur, utid FROM _polletto_states)
        ),
        (utid)
      ) AS overlap
    JOIN _polletto_states AS states ON states.id = overlap.id_1
    GROUP BY wakeup_id, did
  ),
  ranked AS (
    SELECT
      *,
      row_number() OVER (PARTITION BY wakeup_id ORDER BY dur DESC, did) AS rank
    FROM summed
  )
SELECT wakeup_id, did
FROM ranked
WHERE rank = 1
ORDER BY wakeup_id;

CREATE PERFETTO INDEX _polletto_did_meanwhile_by_wakeup
ON _polletto_did_meanwhile(wakeup_id);

-- What the recorder itself found a poll to have slept for, and where it was:
-- of one that was cut off, it may know only later.
CREATE PERFETTO TABLE _polletto_told AS
SELECT
  slice.parent_id AS poll_id,
  slice.name AS kind,
  max(arguments.waited_for) AS wait,
  max(callstack.callsite_id) AS callsite_id,
  max(arguments.slept_there_ns) AS slept_there_ns
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
LEFT JOIN __intrinsic_track_event_callstacks AS callstack
  ON callstack.slice_id = slice.id
WHERE slice.category = 'finding' AND slice.parent_id IS NOT NULL
GROUP BY slice.parent_id, slice.name;

-- What most of a poll's time went to, and by that what is wrong with it if it
-- is long.
CREATE PERFETTO TABLE _polletto_faults AS
SELECT
  poll.*,
  CASE
    -- So it is called as well if nothing is known of the thread.
    WHEN coalesce(poll.cpu_ns >= max(poll.off_cpu_ns, poll.runqueue_ns), TRUE)
      THEN 'long poll'
    WHEN poll.off_cpu_ns >= poll.runqueue_ns THEN 'slept in poll'
    ELSE 'preempted in poll'
  END AS kind
FROM polletto_polls AS poll
-- Threads for blocking code are there to be blocked. Older traces tell them by
-- names alone.
WHERE poll.poll_kind IS NULL
  AND poll.future NOT GLOB '*::blocking::task::BlockingTask*'
ORDER BY poll.ts;
