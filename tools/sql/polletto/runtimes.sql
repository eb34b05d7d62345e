INCLUDE PERFETTO MODULE polletto.arguments;

INCLUDE PERFETTO MODULE polletto.workers;

-- What runtimes told of their threads for blocking code, from one change to the
-- next.
CREATE PERFETTO TABLE _polletto_blocking_numbers AS
SELECT
  tracks.upid,
  tracks.group_name AS runtime,
  tracks.name,
  counter.ts,
  -- Of a process that has ended, nothing more is true.
  lead(counter.ts, 1, coalesce(process.end_ts, trace_end())) OVER (
    PARTITION BY counter.track_id
    ORDER BY counter.ts
  ) AS until,
  cast_int!(counter.value) AS value
FROM counter
JOIN _polletto_tracks AS tracks USING (track_id)
LEFT JOIN process USING (upid)
WHERE
  tracks.name IN ('blocking queue', 'blocking threads', 'idle blocking threads')
  AND tracks.group_name GLOB 'Tokio workers*';

-- Times in which tasks waited for a thread for blocking code, and none of them
-- was idle.
CREATE PERFETTO TABLE _polletto_full_pools AS
WITH
  full AS (
    SELECT
      queue.upid,
      queue.runtime,
      max(queue.ts, idle.ts) AS ts,
      min(queue.until, idle.until) AS until,
      queue.value AS waiting
    FROM _polletto_blocking_numbers AS queue
    JOIN _polletto_blocking_numbers AS idle
      ON idle.upid = queue.upid
      AND idle.runtime = queue.runtime
      AND idle.ts < queue.until
      AND queue.ts < idle.until
    WHERE
      queue.name = 'blocking queue'
      AND queue.value > 0
      AND idle.name = 'idle blocking threads'
      AND idle.value = 0
  ),
  -- Where one begins when another ends, they are one.
  begun AS (
    SELECT
      *,
      ts > coalesce(
        lag(until) OVER (PARTITION BY upid, runtime ORDER BY ts), -1
      ) AS is_new
    FROM full
  ),
  numbered AS (
    SELECT
      *,
      sum(is_new) OVER (PARTITION BY upid, runtime ORDER BY ts) AS stretch
    FROM begun
  )
SELECT
  upid,
  runtime,
  min(ts) AS ts,
  max(until) - min(ts) AS dur,
  max(waiting) AS waiting
FROM numbered
GROUP BY upid, runtime, stretch;

-- What is wrong with runtimes as a whole, of those that have several workers.
-- Numbers are read twice a second by default, so nothing shorter than a second
-- is told. The recorder tells the same, as slices `findings` and in its summary,
-- unless it was killed or did not look for findings; this is from what the
-- trace has of threads and numbers.
CREATE PERFETTO TABLE polletto_runtime_findings(
  -- The process.
  upid JOINID(process.id),
  -- The group of its workers' tracks, which stands for the runtime.
  runtime STRING,
  -- `blocking pool full`: closures that may block waited for a thread, and none
  -- was idle. `worker never parks`: it slept for less than a hundredth of the
  -- time outside of polls, so it always had work, or was kept by some.
  -- `one busy worker`: it slept for less than a tenth of the time, and the
  -- others for more than four fifths, on average.
  kind STRING,
  -- Which worker, if it is one's.
  worker STRING,
  -- When it began; NULL if it was so all the time.
  ts TIMESTAMP,
  -- How long it lasted, as far as it was seen.
  dur DURATION,
  -- In words.
  detail STRING
)
AS
WITH
  -- A thread that slept before the recording began has no state until it runs.
  known AS (
    SELECT of.upid, of.runtime, of.worker, sum(states.dur) AS known_ns
    FROM _polletto_states AS states
    JOIN _polletto_worker_of_thread AS of USING (utid)
    GROUP BY of.upid, of.runtime, of.worker
  ),
  -- Where tasks block in place, workers move between threads: whose work a
  -- thread's was is not known then.
  moved AS (
    SELECT upid, runtime
    FROM (
      SELECT DISTINCT upid, runtime, worker, utid
      FROM _polletto_poll_slices
      WHERE worker GLOB 'worker *' AND poll_kind IS NULL AND utid IS NOT NULL
    )
    GROUP BY upid, runtime
    HAVING count() > count(DISTINCT worker) OR count() > count(DISTINCT utid)
  ),
  active AS (
    SELECT
      workers.upid,
      workers.runtime,
      workers.worker,
      observed.recorded_ns,
      -- What never polled anything had nothing to do.
      (coalesce(known.known_ns, 0) - coalesce(workers.parked_ns, 0)) * 1.0
        / observed.recorded_ns AS share
    FROM polletto_workers AS workers
    JOIN polletto_observed AS observed USING (upid)
    LEFT JOIN known
      ON known.upid = workers.upid
      AND known.runtime = workers.runtime
      AND known.worker = workers.worker
    WHERE
      workers.runtime GLOB 'Tokio workers*'
      AND workers.worker GLOB 'worker *'
      AND observed.recorded_ns >= 1000000000
      AND NOT EXISTS (
        SELECT 1
        FROM moved
        WHERE moved.upid = workers.upid AND moved.runtime = workers.runtime
      )
  ),
  compared AS (
    SELECT
      *,
      count() OVER whole AS workers,
      sum(share) OVER whole AS shares
    FROM active
    WINDOW whole AS (PARTITION BY upid, runtime)
  )
SELECT
  upid,
  runtime,
  'blocking pool full' AS kind,
  NULL AS worker,
  ts,
  dur,
  format('up to %d waited for a thread', waiting) AS detail
FROM _polletto_full_pools
WHERE dur >= 1000000000
UNION ALL
SELECT
  upid,
  runtime,
  'worker never parks',
  worker,
  NULL,
  recorded_ns,
  format('busy for %.1f %% of the time', 100 * share)
FROM compared
WHERE share > 0.99
UNION ALL
SELECT
  upid,
  runtime,
  'one busy worker',
  worker,
  NULL,
  recorded_ns,
  format(
    'busy for %.0f %% of the time, the others for %.0f %%',
    100 * share,
    100 * (shares - share) / (workers - 1)
  )
FROM compared
WHERE workers > 1 AND share > 0.9 AND (shares - share) / (workers - 1) < 0.2;
