INCLUDE PERFETTO MODULE polletto.functions;

INCLUDE PERFETTO MODULE polletto.waits;

-- What each frame contributes to the stacks that it is in. Of functions that
-- were inlined into each other, the innermost has the lowest id.
CREATE PERFETTO TABLE _polletto_frames AS
WITH
  per_set AS (
    SELECT
      symbol_set_id,
      min(id) AS innermost,
      min(iif(kind = 'user', id, NULL)) AS own,
      min(iif(kind = 'perhaps user', id, NULL)) AS perhaps_own,
      min(iif(dependency IS NOT NULL AND kind <> 'runtime', id, NULL))
        AS dependency,
      min(iif(dependency IS NOT NULL AND kind = 'runtime', id, NULL))
        AS runtime
    FROM _polletto_functions
    GROUP BY symbol_set_id
  )
SELECT
  frame.id AS frame_id,
  coalesce(
    innermost.name,
    frame.deobfuscated_name,
    frame.name,
    mapping.name || '+' || printf('0x%x', frame.rel_pc)
  ) AS function,
  innermost.source_file,
  innermost.line_number,
  -- Kernel modules have mappings of their own.
  mapping.name GLOB '/[[]*'
  AND mapping.name NOT GLOB '/[[]anon:*'
  AND mapping.name <> '/[vdso]' AS is_kernel,
  innermost.kind,
  per_set.own,
  per_set.perhaps_own,
  per_set.dependency,
  per_set.runtime,
  kernel.wait AS kernel_wait,
  kernel.thing AS kernel_thing,
  called.wait AS called_wait
FROM stack_profile_frame AS frame
LEFT JOIN stack_profile_mapping AS mapping ON mapping.id = frame.mapping
LEFT JOIN per_set USING (symbol_set_id)
LEFT JOIN _polletto_functions AS innermost ON innermost.id = per_set.innermost
LEFT JOIN _polletto_kernel_waits AS kernel ON kernel.frame_id = frame.id
LEFT JOIN _polletto_called_waits AS called
  ON called.symbol_id = per_set.innermost
ORDER BY frame.id;

CREATE PERFETTO INDEX _polletto_frames_by_id ON _polletto_frames(frame_id);

CREATE PERFETTO TABLE _polletto_callers AS
SELECT id, coalesce(parent_id, -1) AS parent_id, frame_id
FROM stack_profile_callsite;

CREATE PERFETTO INDEX _polletto_callers_by_parent
ON _polletto_callers(parent_id);

-- From each thread's first function inwards: what is nearer to the innermost
-- replaces what was found before.
CREATE PERFETTO TABLE _polletto_outermost_first AS
WITH RECURSIVE
  walked(
    id, frame_id, own, perhaps_own, dependency, runtime, wait, thing, called
  ) AS (
    SELECT -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    UNION ALL
    SELECT
      caller.id,
      -- The kernel's functions are not the program's innermost.
      iif(frame.is_kernel, walked.frame_id, caller.frame_id),
      coalesce(frame.own, walked.own),
      coalesce(frame.perhaps_own, walked.perhaps_own),
      coalesce(frame.dependency, walked.dependency),
      coalesce(frame.runtime, walked.runtime),
      iif(frame.is_kernel, coalesce(frame.kernel_wait, walked.wait), NULL),
      -- What a call works on is told by what it calls.
      iif(
        frame.is_kernel AND frame.kernel_wait IS NULL,
        coalesce(frame.kernel_thing, walked.thing),
        NULL
      ),
      -- `syscall` and the like tell nothing, but who called it may.
      iif(
        frame.called_wait IS NOT NULL
        OR frame.kind IN ('user', 'perhaps user', 'crate', 'runtime'),
        frame.called_wait,
        walked.called
      )
    FROM walked
    JOIN _polletto_callers AS caller ON caller.parent_id = walked.id
    JOIN _polletto_frames AS frame ON frame.frame_id = caller.frame_id
  )
SELECT * FROM walked WHERE id >= 0;

-- What callstacks are about: one row for each.
CREATE PERFETTO TABLE polletto_callsites(
  -- The callstack.
  callsite_id JOINID(stack_profile_callsite.id),
  -- Its innermost function outside the kernel.
  function STRING,
  -- The file in which that is written.
  source_file STRING,
  -- The line that was reached there.
  line_number LONG,
  -- Whose code it is: `user`, `rust std`, `runtime`, `crate`, `native`,
  -- `kernel`, `perhaps user` for a crate that is known by its name alone, or
  -- `unknown`.
  kind STRING,
  -- The innermost function of the program's own code, if that is known.
  own_function STRING,
  -- The file in which that is written.
  own_source_file STRING,
  -- The line that was reached there.
  own_line_number LONG,
  -- The same as `file:line`.
  own_source STRING,
  -- Where nothing is the program's own: the crate of the innermost function of
  -- one that it depends on, and of what polls its tasks only if there is no
  -- other. NULL if the program's own code is known, or no crate's.
  crate STRING,
  -- That function.
  crate_function STRING,
  -- The file and line that was reached there, as `file:line`.
  crate_source STRING,
  -- The kernel's innermost function, where its part of the stack is known.
  kernel_function STRING,
  -- What a thread waits for that sleeps there: `lock`, `timer`, `file`, `pipe`,
  -- `network`, `readiness`, `child process`, `page fault` or `other`. Told by
  -- the kernel's functions or, where they are not known, by the program's.
  waited_for STRING
)
AS
SELECT
  callsite.id AS callsite_id,
  coalesce(frame.function, innermost.function) AS function,
  frame.source_file,
  frame.line_number,
  iif(walked.frame_id IS NULL, 'kernel', coalesce(frame.kind, 'unknown'))
    AS kind,
  own.name AS own_function,
  own.source_file AS own_source_file,
  own.line_number AS own_line_number,
  own.source_file || ':' || own.line_number AS own_source,
  dependency.dependency AS crate,
  dependency.name AS crate_function,
  dependency.source_file || ':' || dependency.line_number AS crate_source,
  iif(innermost.is_kernel, innermost.function, NULL) AS kernel_function,
  CASE
    WHEN walked.wait = 'file' THEN coalesce(walked.thing, 'file')
    WHEN walked.wait IS NOT NULL THEN walked.wait
    WHEN innermost.is_kernel THEN 'other'
    ELSE coalesce(walked.called, 'other')
  END AS waited_for
FROM stack_profile_callsite AS callsite
JOIN _polletto_frames AS innermost ON innermost.frame_id = callsite.frame_id
LEFT JOIN _polletto_outermost_first AS walked ON walked.id = callsite.id
LEFT JOIN _polletto_frames AS frame ON frame.frame_id = walked.frame_id
LEFT JOIN _polletto_functions AS own
  ON own.id = coalesce(walked.own, walked.perhaps_own)
LEFT JOIN _polletto_functions AS dependency
  ON own.id IS NULL
  AND dependency.id = coalesce(walked.dependency, walked.runtime)
ORDER BY callsite.id;

CREATE PERFETTO INDEX _polletto_callsites_by_id
ON polletto_callsites(callsite_id);
