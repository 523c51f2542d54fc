"""fleet.py RECIPE SAMPLES LINES: as many lines of a made-up fleet into ClickHouse (as chDB); prints what it cost and what it answers.

SAMPLES has kills as docs/EVENTS.md shows them. Each line made from them has a host, time, workload and image of its own, every
hundredth is there twice, and one is left out. The answers are counted while the lines are made, and compared with what the engine says.
"""
import datetime
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter

from chdb import session

recipe, samples, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
HOSTS, WORKLOADS, BEGIN = 500, 400, datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
kill = next(json.loads(line) for line in open(samples) if '"type":"oom_kill"' in line and '"k8s"' not in line)

by_workload, of_host, foreign, events, size = Counter(), Counter(), Counter(), Counter(), 0
with open("oom.jsonl", "w") as out:
    for number in range(count):
        host = f"node-{number * 7919 % HOSTS}"
        # A few workloads make most of the kills, as in a real fleet.
        workload = f"service-{int((number * 104729 % 1_000_003 / 1_000_003) ** 3 * WORKLOADS)}"
        line = json.loads(json.dumps(kill))
        line["time"] = (BEGIN + datetime.timedelta(seconds=number * 25)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{number % 10**9:09d}Z"
        events[host] += 1
        line["seq"], line["stream"] = events[host], f"stream-of-{host}"
        # One line never arrives.
        if number == count // 2:
            missing = host
            continue
        line["host"]["name"] = host
        # What is different in each kill of a real fleet, so that the size on disk means something.
        random = hashlib.sha256(str(number).encode()).hexdigest()
        line["container"]["id"], line["container"]["name"] = random, workload
        line["oom"]["cgroup"]["path"] = line["victim"]["cgroup"]["path"] = f"/docker/{random}"
        line["victim"]["pid"] = line["victim"]["tid"] = int(random[:6], 16)
        line["victim"]["memory"]["rss_bytes"] = int(random[6:12], 16) * 4096
        line["container"]["image"]["name"] = f"{workload}:v{number // 100_000}"
        by_workload[workload] += 1
        if number % 50 == 0:
            line["oom"]["scope"] = "host"
            of_host[host] += 1
        elif number % 20 == 0:
            line["oom"]["cgroup"]["path"] = "/docker"
            foreign[workload] += 1
        text = json.dumps(line, separators=(",", ":")) + "\n"
        size += len(text)
        out.write(text * (2 if number % 100 == 0 else 1))

text = re.sub(r"--[^\n]*", "", open(recipe).read())
statements = [part.strip() for part in text.split(";") if part.strip()]
connection = session.Session()
answers = []
for statement in statements:
    began = time.monotonic()
    answer = str(connection.query(statement, "TSV"))
    took = time.monotonic() - began
    if statement.startswith("SELECT"):
        answers.append((took, [row.split("\t") for row in answer.splitlines()]))
    elif statement.startswith("INSERT"):
        inserted = took
stored = int(str(connection.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'oomtrace'", "TSV")))


def same(name, said, made):
    if said != made:
        sys.exit(f"{name}: the engine says {said[:3]}, made were {made[:3]}")


def ranked(counter):
    return sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))


same("kills by workload", [(row[1], int(row[2])) for row in answers[0][1]], ranked(by_workload)[:20])
same("kills by image and day", sum(int(row[3]) for row in answers[1][1]), count - 1)
same("hosts that ran out", sorted((row[0], int(row[1])) for row in answers[2][1]), sorted(of_host.items()))
same("another's limit", [(row[0], int(row[2])) for row in answers[3][1]], ranked(foreign))
same("holes", answers[4][1], [[missing, f"stream-of-{missing}", "1"]])
print(f"{count} kills, {size / count:.0f} bytes a line: inserted in {inserted:.1f} s, {stored / count:.0f} bytes a kill stored")
for (took, rows), question in zip(answers, ["by workload", "by image and day", "hosts that ran out", "by a limit above", "holes"]):
    print(f"{question}: {len(rows)} rows in {took:.2f} s")
os.remove("oom.jsonl")
