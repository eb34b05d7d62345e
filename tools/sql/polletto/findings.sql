INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.convoys;

INCLUDE PERFETTO MODULE polletto.faults;

INCLUDE PERFETTO MODULE polletto.overhead;

INCLUDE PERFETTO MODULE polletto.polls;

INCLUDE PERFETTO MODULE polletto.wakeups;

-- What is wrong, if what lasts as long as the threshold is: polls that keep a
-- worker from its other tasks, and tasks that are kept from their polls.
CREATE PERFETTO FUNCTION polletto_findings(
  -- How long is too long, in nanoseconds.
  threshold_ns LONG
)
RETURNS TABLE(
  -- When it began. Of a starved task: when it was ready to be polled.
  ts TIMESTAMP,
  -- How long it lasted.
  dur DURATION,
  -- Of what is about one poll: `at least` if that lasted longer than shown, as
  -- in `polletto_polls`. NULL for a starved task and for a lock convoy.
  extent STRING,
  -- By what most of its time went to: `long poll` for one that ran,
  -- `slept in poll`, or `preempted in poll` for one that could have run but had
  -- no CPU. `starved task` for a task that was ready and not polled.
  -- `lock convoy` for several threads that slept at one lock, as in
  -- `polletto_convoys`, if one did so in a poll for as long as the threshold.
  kind STRING,
  -- What a sleep was for, as in `polletto_callsites`; NULL if no stack was
  -- seen. Of a preempted poll: the thread that ran most meanwhile. Of a starved
  -- task: the poll of its runtime that took most of the time, if one was longer
  -- than the threshold, with that runtime if the process has several, else what
  -- the thread did that polled it in the end.
  -- Of a lock convoy: how many threads there were at once, who held the lock
  -- longest at a time, in which task's poll, and where that was then. NULL for a
  -- long poll.
  detail STRING,
  -- `program` if that is what it tells of, `machine` if others had the CPUs: of a
  -- preempted poll, and of a starved task if the poll in `detail` was one and had
  -- no CPU for half of the time or more, or if no poll is told but that its
  -- worker had no CPU.
  cause STRING,
  -- The task's number in its process. What follows is, of a lock convoy, about
  -- the poll that slept there longest.
  task_id LONG,
  -- The task's future.
  future STRING,
  -- Where that is written, if that is known.
  written_at STRING,
  -- The worker, or a thread that is not known as one. Of a starved task: the
  -- one that polled it in the end.
  worker STRING,
  -- Time in which the thread ran. NULL for a starved task, as are the next two,
  -- of which a lock convoy has the first.
  cpu_ns LONG,
  -- Time in which the thread slept.
  off_cpu_ns LONG,
  -- Time in which the thread could have run, but had no CPU.
  runqueue_ns LONG,
  -- Of a poll that slept: for how much of it the thread did so for that in the
  -- same place: in `own_function`, or with the callstack if that is not known.
  -- NULL for others, and if no stack was seen.
  slept_there_ns LONG,
  -- The callstack that weighs most: of sleeps in a poll that slept, else of
  -- what ran. NULL if none was seen.
  callsite_id JOINID(stack_profile_callsite.id),
  -- Its innermost function outside the kernel.
  function STRING,
  -- The innermost function of the program's own code, if that is known.
  own_function STRING,
  -- The file and line that was reached there, as `file:line`.
  own_source STRING,
  -- Where nothing is the program's own: the crate that the thread was in, as in
  -- `polletto_callsites`. What happens there has many functions, so one place
  -- is what has one category, as in `polletto_categories`, or else one crate.
  crate STRING,
  -- The innermost function of that crate.
  crate_function STRING,
  -- The file and line that was reached there, as `file:line`.
  crate_source STRING,
  -- The poll. Of a starved task: the one that it waited for.
  poll_id JOINID(slice.id),
  -- The thread.
  utid JOINID(thread.id),
  -- The process.
  upid JOINID(process.id)
)
AS
WITH
  long AS MATERIALIZED (
    SELECT fault.*, meanwhile.name AS ran_meanwhile
    FROM _polletto_faults AS fault
    LEFT JOIN _polletto_ran_meanwhile AS meanwhile
      ON meanwhile.poll_id = fault.id
    WHERE fault.dur >= $threshold_ns
  ),
  starved AS MATERIALIZED (
    SELECT
      woken.id AS wakeup_id,
      woken.poll_ts - woken.wait_ns AS ts,
      woken.wait_ns AS dur,
      woken.poll_id,
      woken.poll_ts,
      woken.task_id,
      woken.future,
      woken.upid,
      poll.worker,
      poll.runtime,
      poll.utid
    FROM polletto_wakeups AS woken
    JOIN _polletto_poll_slices AS poll ON poll.id = woken.poll_id
    WHERE
      woken.wait_ns >= $threshold_ns
      -- Where something was lost meanwhile, that may have been a poll.
      AND NOT EXISTS (
        SELECT 1
        FROM polletto_losses AS loss
        WHERE
          loss.ts < woken.poll_ts
          AND loss.ts + loss.dur > woken.poll_ts - woken.wait_ns
          AND (
            loss.name IN ('records lost', 'samples lost')
            OR (
              loss.name GLOB 'polls not recorded*' AND loss.upid = woken.upid
            )
          )
      )
  ),
  -- Processes of which it is to be said whose worker one is.
  several_runtimes AS MATERIALIZED (
    SELECT upid
    FROM _polletto_tracks
    WHERE group_name GLOB '* workers' OR group_name GLOB '* workers, runtime *'
    GROUP BY upid
    HAVING count(DISTINCT group_name) > 1
  ),
  -- Of the same runtime, and long themselves: else it was no single poll that
  -- starved the task.
  -- Seeks what overlaps: of all with all there are soon too many.
  meanwhile AS MATERIALIZED (
    SELECT
      overlap.id_0 AS wakeup_id,
      overlap.id_1 AS poll_id,
      overlap.dur AS shared_ns,
      row_number() OVER (
        PARTITION BY overlap.id_0
        ORDER BY overlap.dur DESC, overlap.id_1
      ) AS rank
    FROM
      _interval_intersect!(
        (
          (
            SELECT wakeup_id AS id, ts, dur, upid, runtime
            FROM starved
            WHERE dur > 0 AND runtime IS NOT NULL
          ),
          (
            SELECT id, ts, dur, upid, runtime
            FROM long
            WHERE dur > 0 AND runtime IS NOT NULL
          )
        ),
        (upid, runtime)
      ) AS overlap
  ),
  found AS (
    SELECT
      long.ts,
      long.dur,
      long.extent,
      long.kind,
      CASE long.kind
        WHEN 'slept in poll' THEN coalesce(told.wait, slept.wait)
        WHEN 'preempted in poll' THEN long.ran_meanwhile
      END AS detail,
      iif(long.kind = 'preempted in poll', 'machine', 'program') AS cause,
      long.task_id,
      long.future,
      long.worker,
      long.cpu_ns,
      long.off_cpu_ns,
      long.runqueue_ns,
      iif(
        long.kind = 'slept in poll',
        iif(slept.callsite_id IS NULL, told.slept_there_ns, slept.place_ns),
        NULL
      ) AS slept_there_ns,
      coalesce(
        iif(long.kind = 'slept in poll', slept.callsite_id, ran.callsite_id),
        told.callsite_id
      ) AS callsite_id,
      long.id AS poll_id,
      long.utid,
      long.upid
    FROM long
    LEFT JOIN _polletto_slept_most AS slept ON slept.poll_id = long.id
    LEFT JOIN _polletto_ran_most AS ran ON ran.poll_id = long.id
    LEFT JOIN _polletto_told AS told
      ON told.poll_id = long.id AND told.kind = long.kind
    UNION ALL
    SELECT
      starved.ts,
      starved.dur,
      NULL AS extent,
      'starved task' AS kind,
      coalesce(
        kept.worker || ' polled ' || kept.name || ' for '
        || printf('%.1f ms', kept.dur / 1e6)
        || iif(several.upid IS NULL, '', ' (' || kept.runtime || ')'),
        did.did
      ) AS detail,
      iif(
        iif(
          keeping.id IS NULL,
          did.did = 'its worker had no CPU',
          keeping.kind = 'preempted in poll'
          AND 2 * min(keeping.runqueue_ns, meanwhile.shared_ns) >= starved.dur
        ),
        'machine',
        'program'
      ) AS cause,
      starved.task_id,
      starved.future,
      starved.worker,
      NULL AS cpu_ns,
      NULL AS off_cpu_ns,
      NULL AS runqueue_ns,
      NULL AS slept_there_ns,
      NULL AS callsite_id,
      starved.poll_id,
      starved.utid,
      starved.upid
    FROM starved
    LEFT JOIN meanwhile
      ON meanwhile.wakeup_id = starved.wakeup_id AND meanwhile.rank = 1
    LEFT JOIN _polletto_poll_slices AS kept ON kept.id = meanwhile.poll_id
    LEFT JOIN long AS keeping ON keeping.id = meanwhile.poll_id
    LEFT JOIN _polletto_did_meanwhile AS did
      ON did.wakeup_id = starved.wakeup_id
    LEFT JOIN several_runtimes AS several ON several.upid = starved.upid
    UNION ALL
    SELECT
      convoy.ts,
      convoy.dur,
      NULL AS extent,
      'lock convoy' AS kind,
      printf('%d threads at once', convoy.at_once)
      || iif(
        convoy.held_by_tid IS NULL,
        '',
        printf(
          ', %s held it for up to %.1f ms',
          coalesce(holder.name, 'thread') || ' ' || convoy.held_by_tid,
          convoy.held_ns / 1e6
        )
        || coalesce(
          ', polling ' || of_holder.name || ' #' || of_holder.task_id,
          ''
        )
        || coalesce(
          ', in ' || convoy.held_in || coalesce(' at ' || convoy.held_source, ''),
          ''
        )
      ) AS detail,
      'program' AS cause,
      convoy.task_id,
      convoy.future,
      convoy.worker,
      NULL AS cpu_ns,
      convoy.longest_ns AS off_cpu_ns,
      NULL AS runqueue_ns,
      NULL AS slept_there_ns,
      convoy.callsite_id,
      convoy.poll_id,
      convoy.utid,
      convoy.upid
    FROM polletto_convoys AS convoy
    LEFT JOIN thread AS holder ON holder.utid = convoy.held_by
    LEFT JOIN _polletto_poll_slices AS of_holder
      ON of_holder.id = convoy.held_by_poll_id
    WHERE convoy.longest_ns >= $threshold_ns
  )
SELECT
  found.ts,
  found.dur,
  found.extent,
  found.kind,
  found.detail,
  found.cause,
  found.task_id,
  found.future,
  poll.written_at,
  found.worker,
  found.cpu_ns,
  found.off_cpu_ns,
  found.runqueue_ns,
  found.slept_there_ns,
  found.callsite_id,
  callsite.function,
  callsite.own_function,
  callsite.own_source,
  callsite.crate,
  callsite.crate_function,
  callsite.crate_source,
  found.poll_id,
  found.utid,
  found.upid
FROM found
LEFT JOIN polletto_callsites AS callsite USING (callsite_id)
LEFT JOIN _polletto_poll_slices AS poll ON poll.id = found.poll_id
ORDER BY found.ts;

-- What is wrong, if what lasts 5 ms is.
CREATE PERFETTO VIEW polletto_default_findings(
  -- As in `polletto_findings`, as are all others.
  ts TIMESTAMP,
  -- How long it lasted.
  dur DURATION,
  -- `at least` if a poll lasted longer than shown.
  extent STRING,
  -- `long poll`, `slept in poll`, `preempted in poll`, `starved task` or
  -- `lock convoy`.
  kind STRING,
  -- What a sleep was for, who ran meanwhile, what was polled meanwhile, or who
  -- held the lock.
  detail STRING,
  -- `program` or `machine`: what it tells of.
  cause STRING,
  -- The task's number in its process.
  task_id LONG,
  -- The task's future.
  future STRING,
  -- Where that is written, if that is known.
  written_at STRING,
  -- The worker, or a thread that is not known as one.
  worker STRING,
  -- Time in which the thread ran.
  cpu_ns LONG,
  -- Time in which the thread slept.
  off_cpu_ns LONG,
  -- Time in which the thread could have run, but had no CPU.
  runqueue_ns LONG,
  -- For how much of it a poll slept in the place that is told.
  slept_there_ns LONG,
  -- The callstack that weighs most.
  callsite_id JOINID(stack_profile_callsite.id),
  -- Its innermost function outside the kernel.
  function STRING,
  -- The innermost function of the program's own code.
  own_function STRING,
  -- The file and line that was reached there, as `file:line`.
  own_source STRING,
  -- Where nothing is the program's own: the crate that the thread was in, as in
  -- `polletto_callsites`. What happens there has many functions, so one place
  -- is what has one category, as in `polletto_categories`, or else one crate.
  crate STRING,
  -- The innermost function of that crate.
  crate_function STRING,
  -- The file and line that was reached there, as `file:line`.
  crate_source STRING,
  -- The poll.
  poll_id JOINID(slice.id),
  -- The thread.
  utid JOINID(thread.id),
  -- The process.
  upid JOINID(process.id)
)
AS
SELECT * FROM polletto_findings(5000000);
