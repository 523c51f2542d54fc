-- DuckDB: one incident, or files gathered from many hosts; no server. Run with version 2.0.1.
--   duckdb -c ".read duckdb.sql"     in the directory with oom.jsonl
-- Each part of a line is read as JSON, so that a key that one line has and another lacks changes no type.
CREATE VIEW line AS
SELECT DISTINCT ON (stream, seq, id) *
FROM read_json('oom*.jsonl', format='newline_delimited', columns={
  time: 'TIMESTAMP', type: 'VARCHAR', severity: 'VARCHAR', message: 'VARCHAR', seq: 'UBIGINT', stream: 'VARCHAR', id: 'VARCHAR', origin: 'VARCHAR',
  host: 'JSON', oom: 'JSON', victim: 'JSON', container: 'JSON', k8s: 'JSON', systemd: 'JSON', missing: 'JSON'});
-- A line may come twice. Lines with the same stream and seq, or the same id, are one line: DISTINCT ON keeps one of them.

CREATE VIEW kill AS
SELECT time, host->>'$.name' AS host, k8s->>'$.namespace.name' AS namespace,
       coalesce(k8s->>'$.container.name', container->>'$.name', systemd->>'$.unit', victim->>'$.comm') AS workload,
       container->>'$.image.name' AS image, oom->>'$.scope' AS scope,
       (oom->>'$.cgroup.limit_bytes')::UBIGINT AS limit_bytes,
       (victim->>'$.memory.rss_bytes')::UBIGINT AS rss_bytes,
       oom->>'$.cgroup.path' AS limited_by, victim->>'$.cgroup.path' AS victim_cgroup
FROM line WHERE type = 'oom_kill';

-- 1. What is killed most, and on how many hosts.
SELECT namespace, workload, count(*) AS kills, count(DISTINCT host) AS hosts, max(limit_bytes) AS limit_bytes
FROM kill GROUP BY ALL ORDER BY kills DESC, workload LIMIT 20;
-- 2. Before and after a deploy: by image and day.
SELECT workload, image, date_trunc('day', time) AS day, count(*) AS kills FROM kill GROUP BY ALL ORDER BY ALL;
-- 3. Hosts that ran out themselves.
SELECT host, count(*) AS kills, max(time) AS last FROM kill WHERE scope = 'host' GROUP BY host ORDER BY kills DESC;
-- 4. Killed by the limit of a cgroup above their own.
SELECT workload, limited_by, count(*) AS kills FROM kill
WHERE limited_by IS NOT NULL AND limited_by != victim_cgroup GROUP BY ALL ORDER BY kills DESC, workload;
-- 5. What is not known, and why.
SELECT reason->>'$.key' AS key, reason->>'$.reason' AS reason, count(*) AS lines
FROM (SELECT unnest(missing::JSON[]) AS reason FROM line WHERE missing IS NOT NULL) GROUP BY ALL ORDER BY lines DESC, key;
-- 6. Holes: events that are not here. What the tracer itself lost is in its `lost` lines.
SELECT host->>'$.name' AS host, stream, max(seq) - min(seq) + 1 - count(DISTINCT seq) AS holes
FROM line WHERE stream IS NOT NULL AND id IS NULL GROUP BY ALL HAVING holes > 0 ORDER BY holes DESC;
