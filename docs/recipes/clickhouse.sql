-- ClickHouse: many hosts, one table. Run with version 26.5 (as chDB).
-- Columns for what is asked often, and the whole line, so that nothing is lost by this schema.
CREATE TABLE oomtrace (
  time        DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
  type        LowCardinality(String),
  origin      LowCardinality(String),
  host        LowCardinality(String),
  stream      String,
  seq         UInt64,
  id          String,
  scope       LowCardinality(String),
  namespace   LowCardinality(String),
  workload    LowCardinality(String),
  image       LowCardinality(String),
  rss_bytes   UInt64,
  limit_bytes UInt64,
  line        String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
ORDER BY (type, stream, seq, id)
PARTITION BY toYYYYMM(time)
TTL toDateTime(time) + INTERVAL 1 YEAR;
-- A line may come twice: a shipper sends it again, or a tracer that replaces another writes it again. stream and seq, or id,
-- name the line, so ReplacingMergeTree keeps one of them. FINAL in a query hides those that are not merged yet.

-- The lines as they are, one a row.
INSERT INTO oomtrace
SELECT parseDateTime64BestEffort(JSONExtractString(line, 'time'), 9, 'UTC'), JSONExtractString(line, 'type'),
       JSONExtractString(line, 'origin'), JSONExtractString(line, 'host', 'name'),
       JSONExtractString(line, 'stream'), JSONExtractUInt(line, 'seq'), JSONExtractString(line, 'id'),
       JSONExtractString(line, 'oom', 'scope'),
       JSONExtractString(line, 'k8s', 'namespace', 'name'),
       coalesce(nullIf(JSONExtractString(line, 'k8s', 'container', 'name'), ''),
                nullIf(JSONExtractString(line, 'container', 'name'), ''),
                nullIf(JSONExtractString(line, 'systemd', 'unit'), ''), JSONExtractString(line, 'victim', 'comm')),
       JSONExtractString(line, 'container', 'image', 'name'),
       JSONExtractUInt(line, 'victim', 'memory', 'rss_bytes'), JSONExtractUInt(line, 'oom', 'cgroup', 'limit_bytes'), line
FROM file('oom.jsonl', 'LineAsString', 'line String');

-- 1. What is killed most, and on how many hosts.
SELECT namespace, workload, count() AS kills, uniqExact(host) AS hosts, max(limit_bytes) AS limit_bytes
FROM oomtrace FINAL WHERE type = 'oom_kill' GROUP BY ALL ORDER BY kills DESC, workload LIMIT 20;
-- 2. Before and after a deploy: by image and day.
SELECT workload, image, toDate(time) AS day, count() AS kills
FROM oomtrace FINAL WHERE type = 'oom_kill' GROUP BY ALL ORDER BY workload, image, day;
-- 3. Hosts that ran out themselves.
SELECT host, count() AS kills, max(time) AS last
FROM oomtrace FINAL WHERE type = 'oom_kill' AND scope = 'host' GROUP BY host ORDER BY kills DESC;
-- 4. Killed by the limit of a cgroup above their own.
SELECT workload, JSONExtractString(line, 'oom', 'cgroup', 'path') AS limited_by, count() AS kills
FROM oomtrace FINAL
WHERE type = 'oom_kill' AND limited_by != '' AND limited_by != JSONExtractString(line, 'victim', 'cgroup', 'path')
GROUP BY ALL ORDER BY kills DESC, workload;
-- 5. Holes: events that neither arrived nor are counted by a `lost` line. The tracer's own losses are in `lost`.
SELECT host, stream, max(seq) - min(seq) + 1 - countDistinct(seq) AS holes FROM oomtrace FINAL
WHERE stream != '' AND id = '' GROUP BY host, stream HAVING holes > 0 ORDER BY holes DESC, host LIMIT 20;
