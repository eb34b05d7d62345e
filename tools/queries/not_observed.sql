-- Where is something missing in this trace? Records that were lost have a length and a number; a switch that the kernel
-- did not report is noticed with the next one.
SELECT slice.ts, slice.dur / 1e6 AS ms, track.name AS cpu, slice.name, EXTRACT_ARG(slice.arg_set_id, 'debug.records') AS records
FROM slice
JOIN track ON slice.track_id = track.id
WHERE slice.name IN ('records lost', 'samples lost', 'switch not reported')
ORDER BY slice.ts;
