-- Which threads were ready to run and waited longest for a CPU, and who had woken them?
SELECT thread_state.ts, thread_state.dur / 1e6 AS ms, thread.name, waker.name AS waker
FROM thread_state
JOIN thread USING (utid)
LEFT JOIN thread AS waker ON thread_state.waker_utid = waker.utid
WHERE state IN ('R', 'R+')
ORDER BY thread_state.dur DESC
LIMIT 20;
