-- Where did each thread's time go? A state that the recording's end cut off has no length of its own.
SELECT
  thread.name,
  tid,
  state,
  sum(iif(thread_state.dur < 0, trace_end() - thread_state.ts, thread_state.dur)) / 1e6 AS ms,
  count(*) AS times
FROM thread_state
JOIN thread USING (utid)
GROUP BY utid, state
ORDER BY ms DESC;
