-- How many stacks lack something, and why? Those that lack nothing come first, without a reason.
WITH RECURSIVE outwards(sample_id, callsite_id) AS (
  SELECT id, callsite_id FROM stack_sample
  UNION ALL
  SELECT sample_id, parent_id
  FROM outwards
  JOIN stack_profile_callsite AS callsite ON outwards.callsite_id = callsite.id
  WHERE parent_id IS NOT NULL
)
SELECT iif(frame.name GLOB '[[]stack *', frame.name, NULL) AS reason, count(*) AS samples
FROM outwards
JOIN stack_profile_callsite AS callsite ON outwards.callsite_id = callsite.id
JOIN stack_profile_frame AS frame ON callsite.frame_id = frame.id
WHERE callsite.parent_id IS NULL
GROUP BY reason
ORDER BY reason IS NOT NULL, samples DESC;
