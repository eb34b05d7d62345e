INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.overhead;

INCLUDE PERFETTO MODULE polletto.polls;

-- Which worker a thread is. Polls stand on the track of their thread for as
-- long as it is not known as a worker, so most of its polls decide.
CREATE PERFETTO TABLE _polletto_worker_of_thread AS
WITH
  counted AS (
    SELECT
      upid,
      utid,
      runtime,
      worker,
      row_number() OVER (
        PARTITION BY upid, utid
        ORDER BY runtime GLOB '* threads', count() DESC
      ) AS rank
    FROM polletto_polls
    WHERE utid IS NOT NULL AND poll_kind IS NULL
    GROUP BY upid, utid, runtime, worker
  )
SELECT upid, utid, runtime, worker
FROM counted
WHERE rank = 1;

CREATE PERFETTO INDEX _polletto_worker_of_thread_by_utid
ON _polletto_worker_of_thread(utid);

-- Polls by the worker that they are of.
CREATE PERFETTO VIEW _polletto_polls_of_workers AS
SELECT
  poll.id,
  poll.upid,
  iif(poll.runtime GLOB '* threads', known.runtime, poll.runtime)
    AS runtime,
  iif(poll.runtime GLOB '* threads', known.worker, poll.worker) AS worker,
  poll.utid,
  poll.dur,
  poll.depth,
  poll.extent,
  poll.task_id,
  poll.cpu_ns,
  poll.off_cpu_ns,
  poll.runqueue_ns
FROM polletto_polls AS poll
LEFT JOIN _polletto_worker_of_thread AS known USING (utid)
-- Closures that may block run on threads that are workers at other times.
WHERE poll.poll_kind IS NULL;

-- Stretches in which a thread that polls slept outside of its polls. Those with
-- a part in a poll began there. What blocks in place, or in a closure that may,
-- keeps no worker.
CREATE PERFETTO TABLE _polletto_parks AS
SELECT
  known.upid,
  known.runtime,
  known.worker,
  count() AS parks,
  sum(states.dur) AS parked_ns
FROM _polletto_states AS states
JOIN _polletto_worker_of_thread AS known USING (utid)
WHERE
  states.state IN ('S', 'D')
  AND states.id NOT IN (
    SELECT within.state_id
    FROM _polletto_states_in_polls AS within
    JOIN polletto_polls AS poll ON poll.id = within.poll_id
    WHERE within.state IN ('S', 'D') AND poll.poll_kind IS NULL
  )
GROUP BY known.upid, known.runtime, known.worker;

-- Each worker of each runtime, and what it did: are workers balanced?
CREATE PERFETTO TABLE polletto_workers(
  -- The process.
  upid JOINID(process.id),
  -- The group of the worker's track, which stands for its runtime.
  runtime STRING,
  -- The worker, such as `worker 0`; a thread's number if it is not known which
  -- worker it is.
  worker STRING,
  -- How many polls it had, as far as they were seen.
  polls LONG,
  -- How many tasks it polled.
  tasks LONG,
  -- How long its polls lasted in all. Polls within polls do not count again.
  busy_ns LONG,
  -- For how long its polls were told exactly: the recording's length, without
  -- the time in which there were no probes. NULL if there never were any.
  observed_ns LONG,
  -- The share of that, from 0 to 1, in which it was in exact polls.
  busy_share DOUBLE,
  -- How long its longest poll lasted.
  longest_ns LONG,
  -- For how much of its polls its thread ran.
  cpu_ns LONG,
  -- For how much of its polls its thread slept.
  off_cpu_ns LONG,
  -- For how much of its polls its thread could have run, but had no CPU.
  runqueue_ns LONG,
  -- How often its threads slept between polls.
  parks LONG,
  -- How long they slept then. Where tasks block in place, workers move between
  -- threads, and this is too much.
  parked_ns LONG
)
AS
WITH
  -- Workers that polled nothing have no track, but a queue of their own.
  known AS (
    SELECT DISTINCT upid, runtime, worker
    FROM _polletto_polls_of_workers
    UNION
    SELECT
      upid,
      group_name,
      substr(name, 1, length(name) - length(' queue'))
    FROM _polletto_tracks
    WHERE name GLOB 'worker [0-9]* queue' AND group_name GLOB 'Tokio workers*'
  ),
  polled AS (
    SELECT
      upid,
      runtime,
      worker,
      count() AS polls,
      count(DISTINCT task_id) AS tasks,
      sum(iif(depth = 0, dur, 0)) AS busy_ns,
      sum(iif(depth = 0 AND extent = 'exact', dur, 0)) AS exact_ns,
      max(dur) AS longest_ns,
      sum(iif(depth = 0, cpu_ns, 0)) AS cpu_ns,
      sum(iif(depth = 0, off_cpu_ns, 0)) AS off_cpu_ns,
      sum(iif(depth = 0, runqueue_ns, 0)) AS runqueue_ns
    FROM _polletto_polls_of_workers
    GROUP BY upid, runtime, worker
  )
SELECT
  known.upid,
  known.runtime,
  known.worker,
  coalesce(polled.polls, 0) AS polls,
  coalesce(polled.tasks, 0) AS tasks,
  coalesce(polled.busy_ns, 0) AS busy_ns,
  observed.recorded_ns - observed.unobserved_ns AS observed_ns,
  iif(
    observed.recorded_ns > observed.unobserved_ns,
    coalesce(polled.exact_ns, 0) * 1.0
    / (observed.recorded_ns - observed.unobserved_ns),
    NULL
  ) AS busy_share,
  polled.longest_ns,
  polled.cpu_ns,
  polled.off_cpu_ns,
  polled.runqueue_ns,
  parks.parks,
  parks.parked_ns
FROM known
LEFT JOIN polled
  ON polled.upid = known.upid
  AND polled.runtime = known.runtime
  AND polled.worker = known.worker
LEFT JOIN _polletto_parks AS parks
  ON parks.upid = known.upid
  AND parks.runtime = known.runtime
  AND parks.worker = known.worker
LEFT JOIN polletto_observed AS observed ON observed.upid = known.upid
ORDER BY known.upid, known.runtime, known.worker;
