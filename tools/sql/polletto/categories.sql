INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.patterns;

INCLUDE PERFETTO MODULE polletto.polls;

INCLUDE PERFETTO MODULE polletto.samples;

-- What each crate, each function's name and each file is about.
CREATE PERFETTO TABLE _polletto_about_crates AS
WITH
  crates AS (
    SELECT package AS crate FROM _polletto_packages
    UNION
    -- Of the type, where this is a method; see polletto.code.
    SELECT regexp_extract(name, '^[<&*]*([a-z_][a-z0-9_]*)::')
    FROM _polletto_functions
    WHERE source_file IS NULL
  )
SELECT crates.crate, min(patterns.rank) AS rank
FROM crates
JOIN _polletto_patterns AS patterns
  ON patterns.subject = 'crate' AND crates.crate GLOB patterns.pattern
GROUP BY crates.crate;

CREATE PERFETTO TABLE _polletto_about_names AS
SELECT names.name, min(patterns.rank) AS rank
FROM (SELECT DISTINCT name FROM _polletto_functions) AS names
JOIN _polletto_patterns AS patterns
  ON patterns.subject = 'function' AND names.name GLOB patterns.pattern
GROUP BY names.name;

CREATE PERFETTO TABLE _polletto_about_files AS
WITH
  told AS (
    SELECT files.source_file, patterns.rank
    FROM _polletto_source_files AS files
    JOIN _polletto_patterns AS patterns
      ON patterns.subject = 'path'
      AND files.source_file GLOB patterns.pattern
    UNION ALL
    SELECT packages.source_file, crates.rank
    FROM _polletto_packages AS packages
    JOIN _polletto_about_crates AS crates ON crates.crate = packages.package
  )
SELECT source_file, min(rank) AS rank
FROM told
GROUP BY source_file;

-- What each function is about, by its rank: the least decides.
CREATE PERFETTO TABLE _polletto_about_functions AS
WITH
  told AS (
    SELECT functions.id, names.rank
    FROM _polletto_functions AS functions
    JOIN _polletto_about_names AS names ON names.name = functions.name
    UNION ALL
    SELECT functions.id, files.rank
    FROM _polletto_functions AS functions
    JOIN _polletto_about_files AS files
      ON files.source_file = functions.source_file
    UNION ALL
    SELECT functions.id, crates.rank
    FROM _polletto_functions AS functions
    JOIN _polletto_about_crates AS crates
      ON crates.crate
        = regexp_extract(functions.name, '^[<&*]*([a-z_][a-z0-9_]*)::')
    WHERE functions.source_file IS NULL
  )
SELECT id, min(rank) AS rank
FROM told
GROUP BY id
ORDER BY id;

CREATE PERFETTO INDEX _polletto_about_functions_by_id
ON _polletto_about_functions(id);

-- What each frame is about, without what the program's own code was inlined
-- into: as far as `own`.
CREATE PERFETTO TABLE _polletto_about_frames AS
WITH
  sets AS (
    SELECT symbol_set_id, min(iif(kind = 'user', id, NULL)) AS own
    FROM _polletto_functions
    GROUP BY symbol_set_id
  )
SELECT
  frame.id AS frame_id,
  max(sets.own) IS NOT NULL AS is_own,
  min(about.rank) AS rank
FROM stack_profile_frame AS frame
JOIN sets USING (symbol_set_id)
LEFT JOIN _polletto_functions AS functions
  ON functions.symbol_set_id = sets.symbol_set_id
  AND functions.id <= coalesce(sets.own, functions.id)
LEFT JOIN _polletto_about_functions AS about ON about.id = functions.id
GROUP BY frame.id
ORDER BY frame.id;

CREATE PERFETTO INDEX _polletto_about_frames_by_id
ON _polletto_about_frames(frame_id);

-- From each thread's first function inwards. The program's own code forgets
-- what it was called by.
CREATE PERFETTO TABLE _polletto_about_callsites AS
WITH RECURSIVE
  walked(id, rank) AS (
    SELECT -1, NULL
    UNION ALL
    SELECT
      caller.id,
      iif(
        about.is_own,
        about.rank,
        coalesce(
          min(about.rank, walked.rank), about.rank, walked.rank
        )
      )
    FROM walked
    JOIN _polletto_callers AS caller ON caller.parent_id = walked.id
    LEFT JOIN _polletto_about_frames AS about
      ON about.frame_id = caller.frame_id
  )
SELECT id, rank FROM walked WHERE id >= 0 AND rank IS NOT NULL;

-- What callstacks are about, by the functions that the program's own code has
-- called: those that are about something.
CREATE PERFETTO TABLE polletto_categories(
  -- The callstack.
  callsite_id JOINID(stack_profile_callsite.id),
  -- `logging`, `dns`, `database`, `compression`, `serialization`, `crypto`,
  -- `file`, `network`, `lock`, `allocation`, or one of your own. Of several, the
  -- one that is first in this list.
  category STRING
)
AS
SELECT
  about.id AS callsite_id,
  (
    SELECT patterns.category
    FROM _polletto_patterns AS patterns
    WHERE patterns.rank = about.rank
    LIMIT 1
  ) AS category
FROM _polletto_about_callsites AS about
ORDER BY about.id;

CREATE PERFETTO INDEX _polletto_categories_by_id
ON polletto_categories(callsite_id);

-- What polls of each future spend their time with, on a CPU and asleep.
CREATE PERFETTO TABLE polletto_category_hotspots(
  -- The process.
  upid JOINID(process.id),
  -- The future that was polled.
  future STRING,
  -- As in `polletto_categories`; NULL for what is about none of them.
  category STRING,
  -- How long it ran, as its samples weigh.
  cpu_ns LONG,
  -- The share of that, from 0 to 1, of what ran in polls of this future. NULL
  -- if nothing ran.
  share DOUBLE,
  -- How long it slept.
  off_cpu_ns LONG,
  -- How many samples say so.
  samples LONG,
  -- In how many polls it was seen.
  polls LONG
)
AS
WITH
  summed AS (
    SELECT
      poll.upid,
      poll.future,
      about.category,
      sum(seen.cpu_ns) AS cpu_ns,
      sum(seen.off_cpu_ns) AS off_cpu_ns,
      count() AS samples,
      count(DISTINCT poll.id) AS polls
    FROM _polletto_samples_in_polls AS seen
    JOIN _polletto_poll_slices AS poll ON poll.id = seen.poll_id
    LEFT JOIN polletto_categories AS about USING (callsite_id)
    GROUP BY poll.upid, poll.future, about.category
  )
SELECT
  upid,
  future,
  category,
  CAST(cpu_ns AS INTEGER) AS cpu_ns,
  cpu_ns * 1.0 / nullif(sum(cpu_ns) OVER (PARTITION BY upid, future), 0)
    AS share,
  CAST(off_cpu_ns AS INTEGER) AS off_cpu_ns,
  samples,
  polls
FROM summed
ORDER BY cpu_ns + off_cpu_ns DESC;
