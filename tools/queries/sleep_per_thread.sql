-- How long did each thread sleep, in stretches of at least --min-block, and how long did it then wait for a CPU?
SELECT
  thread.name,
  tid,
  extract_arg(slice.arg_set_id, 'debug.state') AS state,
  count(*) AS stretches,
  sum(extract_arg(slice.arg_set_id, 'debug.sleep_ns')) / 1e6 AS slept_ms,
  sum(extract_arg(slice.arg_set_id, 'debug.runqueue_ns')) / 1e6 AS then_waited_ms,
  max(slice.dur) / 1e6 AS longest_ms
FROM slice
JOIN thread_track ON slice.track_id = thread_track.id
JOIN thread USING (utid)
WHERE slice.category = 'blocked'
GROUP BY utid, state
ORDER BY slept_ms DESC;
