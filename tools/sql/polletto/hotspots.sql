INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.polls;

INCLUDE PERFETTO MODULE polletto.samples;

-- What ran in polls, as samples tell.
CREATE PERFETTO TABLE _polletto_ran_in_polls AS
SELECT
  poll.upid,
  poll.future,
  poll.id AS poll_id,
  poll.task_id,
  seen.callsite_id,
  seen.cpu_ns
FROM _polletto_samples_in_polls AS seen
JOIN _polletto_poll_slices AS poll ON poll.id = seen.poll_id
WHERE seen.cpu_ns > 0;

-- Where polls spend their time on a CPU: by the innermost function outside the
-- kernel, for each future.
CREATE PERFETTO TABLE polletto_hotspots(
  -- The process.
  upid JOINID(process.id),
  -- The future that was polled.
  future STRING,
  -- The function.
  function STRING,
  -- The file in which it is written.
  source_file STRING,
  -- Whose code it is: see `polletto_callsites`.
  kind STRING,
  -- How long it ran, as its samples weigh.
  cpu_ns LONG,
  -- The share of that, from 0 to 1, of what ran in polls of this future.
  share DOUBLE,
  -- How many samples say so.
  samples LONG,
  -- In how many polls it was seen.
  polls LONG
)
AS
WITH
  summed AS (
    SELECT
      ran.upid,
      ran.future,
      callsite.function,
      callsite.source_file,
      callsite.kind,
      sum(ran.cpu_ns) AS cpu_ns,
      count() AS samples,
      count(DISTINCT ran.poll_id) AS polls
    FROM _polletto_ran_in_polls AS ran
    JOIN polletto_callsites AS callsite USING (callsite_id)
    GROUP BY
      ran.upid,
      ran.future,
      callsite.function,
      callsite.source_file,
      callsite.kind
  )
SELECT
  upid,
  future,
  function,
  source_file,
  kind,
  CAST(cpu_ns AS INTEGER) AS cpu_ns,
  cpu_ns * 1.0 / sum(cpu_ns) OVER (PARTITION BY upid, future) AS share,
  samples,
  polls
FROM summed
ORDER BY cpu_ns DESC;

-- Where in the program's own code that is: by the line that led there, for each
-- future.
CREATE PERFETTO TABLE polletto_own_hotspots(
  -- The process.
  upid JOINID(process.id),
  -- The future that was polled.
  future STRING,
  -- The innermost function of the program's own code. NULL where none is known.
  own_function STRING,
  -- The file and line that was reached there, as `file:line`.
  own_source STRING,
  -- How long it ran, with what it called, as samples weigh.
  cpu_ns LONG,
  -- The share of that, from 0 to 1, of what ran in polls of this future.
  share DOUBLE,
  -- How many samples say so.
  samples LONG,
  -- In how many polls it was seen.
  polls LONG
)
AS
WITH
  summed AS (
    SELECT
      ran.upid,
      ran.future,
      callsite.own_function,
      callsite.own_source,
      sum(ran.cpu_ns) AS cpu_ns,
      count() AS samples,
      count(DISTINCT ran.poll_id) AS polls
    FROM _polletto_ran_in_polls AS ran
    JOIN polletto_callsites AS callsite USING (callsite_id)
    GROUP BY
      ran.upid, ran.future, callsite.own_function, callsite.own_source
  )
SELECT
  upid,
  future,
  own_function,
  own_source,
  CAST(cpu_ns AS INTEGER) AS cpu_ns,
  cpu_ns * 1.0 / sum(cpu_ns) OVER (PARTITION BY upid, future) AS share,
  samples,
  polls
FROM summed
ORDER BY cpu_ns DESC;
