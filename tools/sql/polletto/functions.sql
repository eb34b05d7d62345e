-- Whose code is a function? The trace lists where the code of crates, of the
-- runtime and of Rust's standard library stands. What is listed by the name of
-- a crate is code without source lines.
CREATE PERFETTO TABLE _polletto_listed_code AS
SELECT
  iif(name GLOB '*.frame_kind.path.*', 'path', 'crate') AS by,
  iif(
    name GLOB '*.frame_kind.path.*',
    substr(name, length('trace_attribute.polletto.frame_kind.path.') + 1),
    substr(name, length('trace_attribute.polletto.frame_kind.crate.') + 1)
  ) AS listed,
  str_value AS kind
FROM metadata
WHERE
  name GLOB 'trace_attribute.polletto.frame_kind.path.*'
  OR name GLOB 'trace_attribute.polletto.frame_kind.crate.*';

CREATE PERFETTO TABLE _polletto_source_files AS
SELECT
  source_file,
  CASE
    WHEN source_file NOT GLOB '*.rs' THEN 'native'
    ELSE coalesce(
      (
        SELECT kind
        FROM _polletto_listed_code
        WHERE by = 'path' AND substr(source_file, 1, length(listed)) = listed
        LIMIT 1
      ),
      iif(source_file GLOB '/*', 'user', 'unknown')
    )
  END AS kind
FROM (
  SELECT DISTINCT source_file
  FROM stack_profile_symbol
  WHERE source_file IS NOT NULL
);

CREATE PERFETTO INDEX _polletto_source_files_by_file
ON _polletto_source_files(source_file);

-- The package that each file is of, by the folder in which cargo has it. Those
-- of the user and of the standard library are of none.
CREATE PERFETTO TABLE _polletto_packages AS
SELECT
  source_file,
  replace(
    coalesce(
      regexp_extract(
        source_file, '/registry/src/[^/]+/([^/]+?)-[0-9]+[.][^/]*/'
      ),
      regexp_extract(
        source_file,
        '/git/checkouts/[^/]+/[^/]+/(?:[^/]+/)*?([^/]+)/src/'
      ),
      regexp_extract(
        source_file, '/git/checkouts/([^/]+)-[0-9a-f]{16}/[^/]+/src/'
      ),
      regexp_extract(source_file, '/vendor/([^/]+?)(?:-[0-9]+[.][^/]*)?/src/')
    ),
    '-',
    '_'
  ) AS package
FROM _polletto_source_files
WHERE kind IN ('crate', 'runtime', 'native');

CREATE PERFETTO INDEX _polletto_packages_by_file
ON _polletto_packages(source_file);

-- Functions with whose they are. Where no file is known, the crate that a name
-- begins with says it, and one that is not listed is only perhaps the user's.
-- `dependency` is the crate of those that are of one.
CREATE PERFETTO TABLE _polletto_functions AS
WITH named AS (
  SELECT
    id,
    symbol_set_id,
    name,
    source_file,
    line_number,
    -- Of the type, where this is a method: `<&crate::Type as crate::Trait>`.
    regexp_extract(name, '^[<&*]*([a-z_][a-z0-9_]*)::') AS crate
  FROM stack_profile_symbol
),
told AS (
  SELECT
    named.id,
    named.symbol_set_id,
    named.name,
    named.source_file,
    named.line_number,
    CASE
      WHEN named.source_file IS NOT NULL THEN file.kind
      WHEN named.crate IS NULL THEN 'unknown'
      WHEN named.crate IN ('core', 'alloc', 'std') THEN 'rust std'
      ELSE coalesce(listed.kind, 'perhaps user')
    END AS kind,
    package.package,
    named.crate
  FROM named
  LEFT JOIN _polletto_source_files AS file
    ON file.source_file = named.source_file
  LEFT JOIN _polletto_packages AS package
    ON package.source_file = named.source_file
  LEFT JOIN _polletto_listed_code AS listed
    ON listed.by = 'crate' AND listed.listed = named.crate
)
SELECT
  id,
  symbol_set_id,
  name,
  source_file,
  line_number,
  kind,
  CASE
    WHEN kind IN ('crate', 'runtime') THEN coalesce(package, crate)
    WHEN kind = 'native' THEN package
  END AS dependency
FROM told
ORDER BY id;

CREATE PERFETTO INDEX _polletto_functions_by_id ON _polletto_functions(id);
