-- What ran on each CPU, and when? An end_state of R or R+ means that the thread had to make room for another.
SELECT cpu, ts, dur, thread.name, end_state
FROM sched
JOIN thread USING (utid)
ORDER BY cpu, ts;
