-- What the other modules read first: the arguments of polletto's slices, one
-- row for each set of them. Most slices share their set with others, so this
-- is small even where there are very many polls.

-- Arguments under the names that polletto gives them.
CREATE PERFETTO TABLE _polletto_arguments AS
SELECT
  arg_set_id,
  max(iif(flat_key = 'debug.task_id', int_value, NULL)) AS task_id,
  max(iif(flat_key = 'debug.future', string_value, NULL)) AS future,
  max(iif(flat_key = 'debug.name_tier', string_value, NULL)) AS name_tier,
  max(iif(flat_key = 'debug.extent', string_value, NULL)) AS extent,
  max(iif(flat_key = 'debug.kind', string_value, NULL)) AS kind,
  max(iif(flat_key = 'debug.written_at', string_value, NULL)) AS written_at,
  max(iif(flat_key = 'debug.tid', int_value, NULL)) AS tid,
  max(iif(flat_key = 'debug.pid', int_value, NULL)) AS pid,
  max(iif(flat_key = 'debug.parent', int_value, NULL)) AS parent,
  max(iif(flat_key = 'debug.waker_task_id', int_value, NULL)) AS waker_task_id,
  max(iif(flat_key = 'debug.waker_tid', int_value, NULL)) AS waker_tid,
  max(iif(flat_key = 'debug.lock', int_value, NULL)) AS lock,
  max(iif(flat_key = 'debug.cpu_ns', int_value, NULL)) AS cpu_ns,
  max(iif(flat_key = 'debug.off_cpu_ns', int_value, NULL)) AS off_cpu_ns,
  max(iif(flat_key = 'debug.runqueue_ns', int_value, NULL)) AS runqueue_ns,
  max(iif(flat_key = 'debug.sleep_ns', int_value, NULL)) AS sleep_ns,
  max(iif(flat_key = 'debug.slept_there_ns', int_value, NULL)) AS slept_there_ns,
  max(iif(flat_key = 'debug.state', string_value, NULL)) AS state,
  max(iif(flat_key = 'debug.waited_for', string_value, NULL)) AS waited_for,
  max(iif(flat_key = 'debug.records', int_value, NULL)) AS records,
  max(iif(flat_key = 'debug.polls', int_value, NULL)) AS polls,
  max(iif(flat_key = 'debug.begin', string_value, NULL)) AS begins_with,
  max(iif(flat_key = 'debug.end', string_value, NULL)) AS ends_with,
  max(iif(flat_key = 'debug.spawned_at', string_value, NULL)) AS spawned_at,
  max(iif(flat_key = 'debug.waits_for', string_value, NULL)) AS waits_for,
  max(iif(flat_key = 'debug.awaits', string_value, NULL)) AS awaits
FROM args
WHERE
  flat_key IN (
    'debug.task_id', 'debug.future', 'debug.name_tier', 'debug.extent',
    'debug.written_at', 'debug.tid', 'debug.pid', 'debug.parent',
    'debug.waker_task_id', 'debug.waker_tid', 'debug.lock', 'debug.cpu_ns',
    'debug.off_cpu_ns', 'debug.runqueue_ns', 'debug.sleep_ns', 'debug.state',
    'debug.waited_for', 'debug.records', 'debug.polls', 'debug.begin',
    'debug.end', 'debug.spawned_at', 'debug.waits_for', 'debug.awaits',
    'debug.kind', 'debug.slept_there_ns'
  )
GROUP BY arg_set_id
ORDER BY arg_set_id;

CREATE PERFETTO INDEX _polletto_arguments_by_set
ON _polletto_arguments(arg_set_id);

-- Slices tell threads by the number that the system gives them.
CREATE PERFETTO TABLE _polletto_threads AS
SELECT upid, tid, min(utid) AS utid
FROM thread
WHERE upid IS NOT NULL
GROUP BY upid, tid;

CREATE PERFETTO INDEX _polletto_threads_by_tid ON _polletto_threads(upid, tid);

-- Of tracks that belong to a process, counters among them: whose they are, and
-- the group they stand in.
CREATE PERFETTO TABLE _polletto_tracks AS
SELECT
  track.id AS track_id,
  track.name,
  own.upid,
  parent.name AS group_name
FROM (
  SELECT id, upid FROM process_track
  UNION
  SELECT id, upid FROM process_counter_track
) AS own
JOIN track ON track.id = own.id
LEFT JOIN track AS parent ON parent.id = track.parent_id;

CREATE PERFETTO INDEX _polletto_tracks_by_id ON _polletto_tracks(track_id);
