INCLUDE PERFETTO MODULE polletto.arguments;

-- The recording itself, if polletto made the trace.
CREATE PERFETTO TABLE _polletto_recording AS
SELECT slice.ts, iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur
FROM slice
JOIN track ON track.id = slice.track_id
JOIN track AS parent ON parent.id = track.parent_id
WHERE slice.name = 'recording' AND parent.name = 'polletto';

-- How the recording was made.
CREATE PERFETTO VIEW polletto_settings(
  -- What is set, such as `min_block_ns`.
  name STRING,
  -- To what, as text.
  value STRING
)
AS
SELECT
  substr(name, length('trace_attribute.polletto.') + 1) AS name,
  coalesce(str_value, CAST(int_value AS TEXT)) AS value
FROM metadata
WHERE
  name GLOB 'trace_attribute.polletto.*'
  -- Of code, not of the recording: see polletto.code.
  AND name NOT GLOB 'trace_attribute.polletto.frame_kind.*';

-- Where something is missing in the trace, and when.
CREATE PERFETTO TABLE polletto_losses(
  -- The slice that says so.
  id ID(slice.id),
  -- From when on.
  ts TIMESTAMP,
  -- For how long; 0 for a moment. Without an end, until the trace's.
  dur DURATION,
  -- What is missing: `records lost`, `samples lost`, `switch not reported`,
  -- `polls not recorded: budget`, `polls not recorded: no probes yet`, and
  -- others.
  name STRING,
  -- Where: a CPU, or the polls of a process.
  track STRING,
  -- How many records or samples, where that is known.
  records LONG,
  -- Whose polls are missing.
  pid LONG,
  -- The same process.
  upid JOINID(process.id)
)
AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  slice.name,
  track.name AS track,
  arguments.records,
  arguments.pid,
  (SELECT max(upid) FROM process WHERE pid = arguments.pid) AS upid
FROM slice
JOIN track ON track.id = slice.track_id
LEFT JOIN _polletto_arguments AS arguments USING (arg_set_id)
WHERE slice.category = 'loss' OR slice.name = 'task walk cut short'
ORDER BY slice.ts;

-- When probes told of each process's polls. Without an end, the recorder was
-- killed.
CREATE PERFETTO TABLE _polletto_windows AS
SELECT
  slice.id,
  slice.ts,
  iif(slice.dur < 0, trace_end() - slice.ts, slice.dur) AS dur,
  (SELECT max(upid) FROM process WHERE pid = arguments.pid) AS upid
FROM slice
JOIN _polletto_arguments AS arguments USING (arg_set_id)
WHERE slice.category = 'observed';

-- How long each program's polls were told exactly, as the summary counts it. Of
-- the rest only those are there that samples and switches tell of.
CREATE PERFETTO TABLE polletto_observed(
  -- The process.
  upid JOINID(process.id),
  -- How long it was recorded, from when it was known to poll.
  recorded_ns LONG,
  -- For how much of that no probe told of polls.
  unobserved_ns LONG,
  -- The rest, as a share from 0 to 1.
  share DOUBLE
)
AS
WITH
  -- With probes, each process that has any is at least once without: before.
  missing AS (
    SELECT upid, sum(dur) AS dur
    FROM polletto_losses
    WHERE name GLOB 'polls not recorded*' AND upid IS NOT NULL
    GROUP BY upid
  ),
  observed AS (
    SELECT upid, sum(dur) AS dur
    FROM _polletto_windows
    GROUP BY upid
  ),
  -- Older traces only tell what is missing.
  counted AS (
    SELECT
      missing.upid,
      coalesce(missing.dur + observed.dur, recording.dur) AS recorded_ns,
      missing.dur AS unobserved_ns
    FROM missing
    JOIN _polletto_recording AS recording
    LEFT JOIN observed USING (upid)
  )
SELECT
  upid,
  recorded_ns,
  min(unobserved_ns, recorded_ns) AS unobserved_ns,
  max(0.0, 1.0 - unobserved_ns * 1.0 / recorded_ns) AS share
FROM counted
WHERE recorded_ns > 0;

-- What the recording cost and missed, each as one number.
CREATE PERFETTO VIEW polletto_overhead(
  -- What is counted. With `marks: `, how often the trace says so: each mark may
  -- stand for many records.
  name STRING,
  -- How much.
  value DOUBLE,
  -- In what: `ns`, `bytes`, `percent` of one CPU, or `count`.
  unit STRING
)
AS
WITH
  -- These counters only grow.
  last AS (
    SELECT
      track.name,
      max(counter.value) AS value,
      max(track.unit) AS unit
    FROM counter
    JOIN counter_track AS track ON track.id = counter.track_id
    JOIN track AS parent ON parent.id = track.parent_id
    WHERE parent.name = 'polletto'
    GROUP BY track.name
  )
SELECT
  'recorded' AS name, CAST(sum(dur) AS REAL) AS value, 'ns' AS unit
FROM _polletto_recording
UNION ALL
SELECT name, value, coalesce(unit, 'count')
FROM last
UNION ALL
SELECT
  'recorder CPU share',
  100.0 * last.value / recording.dur,
  'percent'
FROM last
JOIN _polletto_recording AS recording
WHERE last.name = 'recorder CPU time' AND recording.dur > 0
UNION ALL
SELECT 'marks: ' || name, CAST(count() AS REAL), 'count'
FROM polletto_losses
WHERE name NOT GLOB 'polls not recorded*'
GROUP BY name
UNION ALL
SELECT name, CAST(sum(dur) AS REAL), 'ns'
FROM polletto_losses
WHERE name GLOB 'polls not recorded*'
GROUP BY name;
