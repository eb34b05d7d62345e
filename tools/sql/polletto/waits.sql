INCLUDE PERFETTO MODULE polletto.functions;

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
