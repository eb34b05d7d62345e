-- Which functions were on a CPU, and which did threads sleep in? By the innermost function of each stack: its name where
-- there is one, else the file and the address in it.
WITH innermost AS (
  -- Of functions that were inlined into each other, the one that the instruction was written in has the lowest id.
  SELECT frame.id, frame.mapping, frame.rel_pc, frame.name AS frame_name, min(symbol.id) AS symbol_id
  FROM stack_profile_frame AS frame
  LEFT JOIN stack_profile_symbol AS symbol USING (symbol_set_id)
  GROUP BY frame.id
)
SELECT
  coalesce(symbol.name, frame_name, mapping.name || '+' || printf('0x%x', rel_pc)) AS function,
  symbol.source_file || ':' || symbol.line_number AS line,
  sum(iif(track.name = 'cpu-time', counter.value, 0)) / 1e6 AS on_cpu_ms,
  sum(iif(track.name = 'off-cpu-time', counter.value, 0)) / 1e6 AS asleep_ms,
  sum(iif(track.name = 'run-queue-time', counter.value, 0)) / 1e6 AS waiting_for_cpu_ms,
  count(DISTINCT sample.id) AS samples
FROM stack_sample AS sample
JOIN stack_sample_counter AS counter ON counter.stack_sample_id = sample.id
JOIN track ON counter.track_id = track.id
JOIN stack_profile_callsite AS callsite ON sample.callsite_id = callsite.id
JOIN innermost ON callsite.frame_id = innermost.id
LEFT JOIN stack_profile_symbol AS symbol ON innermost.symbol_id = symbol.id
LEFT JOIN stack_profile_mapping AS mapping ON innermost.mapping = mapping.id
GROUP BY function, line
ORDER BY on_cpu_ms + asleep_ms DESC
LIMIT 30;
