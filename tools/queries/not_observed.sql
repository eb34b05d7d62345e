-- Where is something missing in this trace, and how much?
SELECT slice.ts, slice.dur / 1e6 AS ms, track.name, EXTRACT_ARG(slice.arg_set_id, 'debug.records') AS records
FROM slice
JOIN track ON slice.track_id = track.id
WHERE slice.name = 'records lost'
ORDER BY slice.ts;
