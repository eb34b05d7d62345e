-- Whose code is a function? The trace lists where the code of crates, of the
-- runtime and of Rust's standard library stands. What is listed by the name of
-- a crate is code without source lines.
CREATE PERFETTO TABLE _polletto_listed_code AS
SELECT
  iif(name GLOB '*.frame_kind.path.*', 'path', 'crate') AS by,
  iif(
    name GLOB '*.frame_kind.path.*',
    substr(name, length('trace_attribute.polletto.frame_kind.path.') + 1),
    substr(name, length('trace_attribute.polletto.frame_kind.crate.') + 1)
  ) AS listed,
  str_value AS kind
FROM metadata
WHERE
  name GLOB 'trace_attribute.polletto.frame_kind.path.*'
  OR name GLOB 'trace_attribute.polletto.frame_kind.crate.*';

CREATE PERFETTO TABLE _polletto_source_files AS
SELECT
  source_file,
  CASE
    WHEN source_file NOT GLOB '*.rs' THEN 'native'
    ELSE coalesce(
      (
        SELECT kind
        FROM _polletto_listed_code
        WHERE by = 'path' AND substr(source_file, 1, length(listed)) = listed
        LIMIT 1
      ),
      iif(source_file GLOB '/*', 'user', 'unknown')
    )
  END AS kind
FROM (
  SELECT DISTINCT source_file
  FROM stack_profile_symbol
  WHERE source_file IS NOT NULL
);

CREATE PERFETTO INDEX _polletto_source_files_by_file
ON _polletto_source_files(source_file);

-- The package that each file is of, by the folder in which cargo has it. Those
-- of the user and of the standard library are of none.
CREATE PERFETTO TABLE _polletto_packages AS
SELECT
  source_file,
  replace(
    coalesce(
      regexp_extract(
        source_file, '/registry/src/[^/]+/([^/]+?)-[0-9]+[.][^/]*/'
      ),
      regexp_extract(
        source_file,
        '/git/checkouts/[^/]+/[^/]+/(?:[^/]+/)*?([^/]+)/src/'
      ),
      regexp_extract(
        source_file, '/git/checkouts/([^/]+)-[0-9a-f]{16}/[^/]+/src/'
      ),
      regexp_extract(source_file, '/vendor/([^/]+?)(?:-[0-9]+[.][^/]*)?/src/')
    ),
    '-',
    '_'
  ) AS package
FROM _polletto_source_files
WHERE kind IN ('crate', 'runtime', 'native');

CREATE PERFETTO INDEX _polletto_packages_by_file
ON _polletto_packages(source_file);

-- Functions with whose they are. Where no file is known, the crate that a name
-- begins with says it, and one that is not listed is only perhaps the user's.
-- `dependency` is the crate of those that are of one.
CREATE PERFETTO TABLE _polletto_functions AS
WITH named AS (
  SELECT
    id,
    symbol_set_id,
    name,
    source_file,
    line_number,
    -- Of the type, where this is a method: `<&crate::Type as crate::Trait>`.
    regexp_extract(name, '^[<&*]*([a-z_][a-z0-9_]*)::') AS crate
  FROM stack_profile_symbol
),
told AS (
  SELECT
    named.id,
    named.symbol_set_id,
    named.name,
    named.source_file,
    named.line_number,
    CASE
      WHEN named.source_file IS NOT NULL THEN file.kind
      WHEN named.crate IS NULL THEN 'unknown'
      WHEN named.crate IN ('core', 'alloc', 'std') THEN 'rust std'
      ELSE coalesce(listed.kind, 'perhaps user')
    END AS kind,
    package.package,
    named.crate
  FROM named
  LEFT JOIN _polletto_source_files AS file
    ON file.source_file = named.source_file
  LEFT JOIN _polletto_packages AS package
    ON package.source_file = named.source_file
  LEFT JOIN _polletto_listed_code AS listed
    ON listed.by = 'crate' AND listed.listed = named.crate
)
SELECT
  id,
  symbol_set_id,
  name,
  source_file,
  line_number,
  kind,
  CASE
    WHEN kind IN ('crate', 'runtime') THEN coalesce(package, crate)
    WHEN kind = 'native' THEN package
  END AS dependency
FROM told
ORDER BY id;

CREATE PERFETTO INDEX _polletto_functions_by_id ON _polletto_functions(id);

-- What the kernel's functions say of why a thread sleeps in them. A call tells
-- what is waited for; of one that reads or writes, what is read tells better.
CREATE PERFETTO TABLE _polletto_kernel_waits AS
WITH
  served AS (
    SELECT
      id,
      name,
      regexp_extract(name, '^__(?:x64_sys|arm64_sys|do_sys|se_sys)_(.*)$')
        AS call
    FROM stack_profile_frame
    WHERE name IS NOT NULL
  ),
  told AS (
    SELECT
      id,
      CASE
        WHEN
          call IN (
            'futex', 'futex_wait', 'futex_waitv', 'futex_requeue', 'flock',
            'semop', 'semtimedop'
          )
          THEN 'lock'
        WHEN call IN ('nanosleep', 'clock_nanosleep') THEN 'timer'
        WHEN
          call IN (
            'recvfrom', 'recvmsg', 'recvmmsg', 'sendto', 'sendmsg', 'sendmmsg',
            'connect', 'accept', 'accept4', 'shutdown'
          )
          THEN 'network'
        WHEN
          call IN (
            'poll', 'ppoll', 'select', 'pselect6', 'epoll_wait', 'epoll_pwait',
            'epoll_pwait2', 'io_uring_enter'
          )
          THEN 'readiness'
        WHEN call IN ('wait4', 'waitid') THEN 'child process'
        WHEN
          call IN (
            'read', 'readv', 'pread64', 'preadv', 'preadv2', 'write', 'writev',
            'pwrite64', 'pwritev', 'pwritev2', 'fsync', 'fdatasync', 'sync',
            'syncfs', 'sync_file_range', 'fadvise64', 'open', 'openat',
            'openat2', 'creat', 'close', 'stat', 'lstat', 'fstat', 'newstat',
            'newlstat', 'newfstat', 'newfstatat', 'statx', 'getdents64',
            'unlink', 'unlinkat', 'rename', 'renameat', 'renameat2', 'mkdir',
            'mkdirat', 'rmdir', 'truncate', 'ftruncate', 'fallocate',
            'sendfile64', 'copy_file_range', 'splice', 'readlinkat',
            'symlinkat', 'linkat', 'msync'
          )
          THEN 'file'
        WHEN call IS NOT NULL THEN 'other'
        WHEN
          name GLOB 'exc_page_fault*'
          OR name GLOB 'do_user_addr_fault*'
          OR name GLOB 'do_page_fault*'
          OR name GLOB 'do_mem_abort*'
          THEN 'page fault'
      END AS wait,
      CASE
        WHEN
          name GLOB 'pipe_read*'
          OR name GLOB 'pipe_write*'
          OR name GLOB 'anon_pipe_*'
          OR name GLOB 'fifo_*'
          OR name GLOB 'tty_*'
          OR name GLOB 'n_tty_*'
          THEN 'pipe'
        WHEN
          name GLOB 'sock_*'
          OR name GLOB 'unix_stream_*'
          OR name GLOB 'unix_dgram_*'
          OR name GLOB 'tcp_*'
          OR name GLOB 'udp_*'
          OR name GLOB 'inet_*'
          THEN 'network'
      END AS thing
    FROM served
  )
SELECT id AS frame_id, wait, thing
FROM told
WHERE wait IS NOT NULL OR thing IS NOT NULL;

-- The same, told by what programs call. Much less is known there, and only
-- what can be nothing else is told.
CREATE PERFETTO TABLE _polletto_called_waits AS
SELECT
  id AS symbol_id,
  CASE
    WHEN
      name GLOB '*::sync::*::futex::*'
      OR name GLOB '*pthread_mutex_lock*'
      OR name GLOB '*pthread_cond_*wait*'
      OR name GLOB '*futex_wait*'
      THEN 'lock'
    WHEN name GLOB '*nanosleep' THEN 'timer'
    WHEN
      name GLOB '*epoll_wait'
      OR name GLOB '*epoll_pwait*'
      OR name GLOB '__*poll'
      THEN 'readiness'
    WHEN
      name GLOB '*pread64'
      OR name GLOB '*pwrite64'
      OR name GLOB '*fsync'
      OR name GLOB '*fdatasync'
      OR name GLOB '__*open64'
      THEN 'file'
    WHEN
      name GLOB '__*recv'
      OR name GLOB '__*recvfrom'
      OR name GLOB '__*recvmsg'
      OR name GLOB '__*send'
      OR name GLOB '__*sendto'
      OR name GLOB '__*sendmsg'
      OR name GLOB '__*connect'
      OR name GLOB '__*accept'
      OR name GLOB '__*accept4'
      THEN 'network'
    WHEN name GLOB '__*wait4' OR name GLOB '__*waitid' THEN 'child process'
  END AS wait
FROM _polletto_functions
WHERE kind IN ('native', 'rust std', 'unknown');

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
