INCLUDE PERFETTO MODULE intervals.intersect;

INCLUDE PERFETTO MODULE polletto.code;

INCLUDE PERFETTO MODULE polletto.polls;

-- What samples of polling threads weigh.
CREATE PERFETTO TABLE _polletto_samples AS
SELECT
  sample.id,
  -- A sample of a sleep is taken at its end, and so may be the poll's: each
  -- stands for the nanosecond before.
  sample.ts - 1 AS ts,
  1 AS dur,
  task.utid,
  sample.callsite_id,
  sum(iif(track.name = 'cpu-time', counter.value, 0)) AS cpu_ns,
  sum(iif(track.name = 'off-cpu-time', counter.value, 0)) AS off_cpu_ns
FROM stack_sample AS sample
JOIN stack_sample_task_context AS task ON task.id = sample.task_context_id
JOIN stack_sample_counter AS counter ON counter.stack_sample_id = sample.id
JOIN track ON track.id = counter.track_id
WHERE
  sample.source = 'polletto'
  AND task.utid IN (SELECT DISTINCT utid FROM _polletto_poll_slices)
GROUP BY sample.id
ORDER BY sample.id;

CREATE PERFETTO INDEX _polletto_samples_by_id ON _polletto_samples(id);

-- Callstacks that were seen in polls. A sample in a poll within another poll
-- is one of both.
CREATE PERFETTO TABLE _polletto_samples_in_polls AS
SELECT
  overlap.id_0 AS poll_id,
  sample.ts,
  sample.callsite_id,
  sample.cpu_ns,
  sample.off_cpu_ns
FROM
  _interval_intersect!(
    (
      (
        SELECT id, ts, dur, utid
        FROM _polletto_poll_slices
        WHERE utid IS NOT NULL
      ),
      (SELECT id, ts, dur, utid FROM _polletto_samples)
    ),
    (utid)
  ) AS overlap
JOIN _polletto_samples AS sample ON sample.id = overlap.id_1
UNION ALL
-- A sleep that outlasts what is shown of its poll has its sample too late, but
-- is drawn in the poll as well.
SELECT
  poll.id AS poll_id,
  slice.ts,
  callstack.callsite_id,
  0 AS cpu_ns,
  min(arguments.sleep_ns, slice.dur) AS off_cpu_ns
FROM slice
JOIN _polletto_poll_slices AS poll ON poll.id = slice.parent_id
JOIN _polletto_arguments AS arguments ON arguments.arg_set_id = slice.arg_set_id
JOIN __intrinsic_track_event_callstacks AS callstack
  ON callstack.slice_id = slice.id
WHERE
  slice.category = 'blocked'
  AND arguments.sleep_ns + arguments.runqueue_ns > slice.dur;
