"""Runs the statements of a file in an embedded ClickHouse, and then a query every half
second until its result no longer changes for three seconds: clickhouse.py FILE QUERY.
Prints the result."""

import re
import sys
import time

from chdb import session


def main():
    clickhouse = session.Session()
    for statement in re.sub(r"(?m)--.*$", "", open(sys.argv[1]).read()).split(";"):
        if not statement.strip():
            continue
        try:
            clickhouse.query(statement)
        except Exception as e:
            # chdb creates a Kafka table, which works, and then reports this.
            if "Shutdown was called" not in str(e):
                raise
    result, since = "", time.monotonic()
    while not result.strip() or time.monotonic() - since < 3:
        time.sleep(0.5)
        now = str(clickhouse.query(sys.argv[2], "CSV"))
        if now != result:
            result, since = now, time.monotonic()
    print(result.strip())


main()
