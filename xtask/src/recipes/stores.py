"""stores.py ENGINE FILE: reads FILE as the engine does by itself; fails if a key has two types, or a line is no row."""
import json
import sys

engine, path = sys.argv[1:]
lines = [json.loads(line) for line in open(path)]
if engine == "duckdb":
    import duckdb

    # Every line is looked at for the types, not only the first 20,480.
    source = f"read_ndjson_auto('{path}', sample_size=-1, maximum_depth=-1, map_inference_threshold=-1)"
    columns = duckdb.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()
    rows = duckdb.sql(f"SELECT count(*) FROM {source}").fetchall()[0][0]
    # What DuckDB cannot give one type, it keeps as JSON.
    no_type = "JSON"
else:
    import chdb

    settings = "SETTINGS input_format_max_rows_to_read_for_schema_inference=1000000, input_format_json_read_numbers_as_strings=0"
    strict = "input_format_json_read_objects_as_strings=0, input_format_json_read_arrays_as_strings=0, "
    strict += "input_format_json_read_bools_as_numbers=0, input_format_json_read_bools_as_strings=0"
    source = f"file('{path}', 'JSONEachRow')"
    described = str(chdb.query(f"DESCRIBE {source} {settings}, {strict}", "TSV"))
    columns = [line.split("\t")[:2] for line in described.splitlines()]
    rows = int(str(chdb.query(f"SELECT count() FROM (SELECT * FROM {source}) {settings}, {strict}", "TSV")))
    no_type = "JSON"

if rows != len(lines):
    sys.exit(f"{rows} rows of {len(lines)} lines")
missed = {key for line in lines for key in line} - {column[0] for column in columns}
if missed:
    sys.exit(f"no column for {sorted(missed)}")
untyped = [column[:2] for column in columns if no_type in column[1]]
if untyped:
    sys.exit(f"no single type: {untyped}")
print(f"{rows} lines, {len(columns)} columns, each with a type of its own")
