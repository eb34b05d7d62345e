-- Which code was on a CPU, and which did threads sleep in? By the innermost frame of each stack: a function's name where
-- there is one, else the file and the address in it.
SELECT
  coalesce(frame.name, mapping.name || '+' || printf('0x%x', frame.rel_pc)) AS code,
  sum(iif(track.name = 'cpu-time', counter.value, 0)) / 1e6 AS on_cpu_ms,
  sum(iif(track.name = 'off-cpu-time', counter.value, 0)) / 1e6 AS asleep_ms,
  sum(iif(track.name = 'run-queue-time', counter.value, 0)) / 1e6 AS waiting_for_cpu_ms,
  count(DISTINCT sample.id) AS samples
FROM stack_sample AS sample
JOIN stack_sample_counter AS counter ON counter.stack_sample_id = sample.id
JOIN track ON counter.track_id = track.id
JOIN stack_profile_callsite AS callsite ON sample.callsite_id = callsite.id
JOIN stack_profile_frame AS frame ON callsite.frame_id = frame.id
LEFT JOIN stack_profile_mapping AS mapping ON frame.mapping = mapping.id
GROUP BY code
ORDER BY on_cpu_ms + asleep_ms DESC
LIMIT 30;
