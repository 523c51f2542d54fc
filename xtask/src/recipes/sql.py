"""sql.py ENGINE FILE: runs each statement of FILE; prints the answers, a row a line, with | between the values."""
import re
import sys

engine, path = sys.argv[1:]
text = re.sub(r"--[^\n]*", "", open(path).read())
statements = [part.strip() for part in text.split(";") if part.strip()]


def show(rows):
    for row in rows:
        print("|".join("" if value is None else str(value) for value in row))
    print("-")


if engine == "duckdb":
    import duckdb

    connection = duckdb.connect()
    for statement in statements:
        show(connection.execute(statement).fetchall())
else:
    from chdb import session

    connection = session.Session()
    for statement in statements:
        # Delivered again, as a shipper may: within one insert the engine would remove what is twice at once.
        if statement.startswith("INSERT"):
            connection.query(statement, "TSV")
        answer = connection.query(statement, "TSV")
        show(line.split("\t") for line in str(answer).splitlines())
