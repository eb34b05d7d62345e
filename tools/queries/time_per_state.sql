-- Where did each thread's time go?
SELECT thread.name, tid, state, sum(dur) / 1e6 AS ms, count(*) AS times
FROM thread_state
JOIN thread USING (utid)
WHERE dur > 0
GROUP BY utid, state
ORDER BY ms DESC;
