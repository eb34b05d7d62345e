-- In whose code was time spent? By the innermost function of each stack: the program's own (`user`), Rust's standard
-- library (`rust std`), what polls tasks (`runtime`), another crate (`crate`), another language (`native`), the kernel. The
-- trace lists where the code of crates stands; `unknown` is what has no name, or no file and no crate that is listed.
WITH innermost AS (
  SELECT frame.id, frame.mapping, min(symbol.id) AS symbol_id
  FROM stack_profile_frame AS frame
  LEFT JOIN stack_profile_symbol AS symbol USING (symbol_set_id)
  GROUP BY frame.id
),
listed AS (
  SELECT
    substr(name, length('trace_attribute.polletto.frame_kind.path.') + 1) AS path,
    str_value AS kind
  FROM metadata
  WHERE name GLOB 'trace_attribute.polletto.frame_kind.path.*'
),
named AS (
  SELECT
    substr(name, length('trace_attribute.polletto.frame_kind.crate.') + 1) AS crate,
    str_value AS kind
  FROM metadata
  WHERE name GLOB 'trace_attribute.polletto.frame_kind.crate.*'
  UNION
  VALUES ('core', 'rust std'), ('alloc', 'rust std'), ('std', 'rust std')
),
kinds AS (
  SELECT
    innermost.id,
    CASE
      -- Kernel modules have mappings of their own.
      WHEN mapping.name GLOB '/[[]*' AND mapping.name NOT GLOB '/[[]anon:*' AND mapping.name <> '/[vdso]' THEN 'kernel'
      -- Of the type, where this is a method: `<&crate::Type as crate::Trait>`.
      WHEN symbol.source_file IS NULL THEN coalesce(
        (SELECT max(kind) FROM named WHERE crate = regexp_extract(symbol.name, '^[<&*]*([a-z_][a-z0-9_]*)::')),
        'unknown'
      )
      WHEN symbol.source_file NOT GLOB '*.rs' THEN 'native'
      ELSE coalesce(
        (SELECT kind FROM listed WHERE substr(symbol.source_file, 1, length(path)) = path),
        iif(symbol.source_file GLOB '/*', 'user', 'unknown')
      )
    END AS kind
  FROM innermost
  LEFT JOIN stack_profile_symbol AS symbol ON innermost.symbol_id = symbol.id
  LEFT JOIN stack_profile_mapping AS mapping ON innermost.mapping = mapping.id
)
SELECT
  kinds.kind,
  sum(iif(track.name = 'cpu-time', counter.value, 0)) / 1e6 AS on_cpu_ms,
  sum(iif(track.name = 'off-cpu-time', counter.value, 0)) / 1e6 AS asleep_ms,
  count(DISTINCT sample.id) AS samples
FROM stack_sample AS sample
JOIN stack_sample_counter AS counter ON counter.stack_sample_id = sample.id
JOIN track ON counter.track_id = track.id
JOIN stack_profile_callsite AS callsite ON sample.callsite_id = callsite.id
JOIN kinds ON callsite.frame_id = kinds.id
GROUP BY kinds.kind
ORDER BY on_cpu_ms + asleep_ms DESC;
