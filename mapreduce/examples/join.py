"""Orders beside the customers who made them: a join of two CSV files.

ringreduce run join customers.csv orders.csv -o joined --out-format jsonl

`customers.csv` has a column `customer_id`, `orders.csv` has `order_id` and `customer_id`; all other columns
come along.  Which file a row is from, `task.input_path` tells.  Each customer's rows are sorted by their
tag, the customer before the orders (a secondary sort), so the reducer holds one customer and streams orders.
"""

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from mapreduce import Csv, Job, task

Row = dict[str, str]
CUSTOMER, ORDER = 0, 1


def mapper(row: Row) -> Iterator[tuple[str, tuple[int, Row]]]:
    is_order = PurePath(task.input_path).name.startswith("orders")
    yield row["customer_id"], (ORDER if is_order else CUSTOMER, row)


def tag_of(tagged: tuple[int, Row]) -> int:
    return tagged[0]


def reducer(_: str, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[str, Row]]:
    customer: Row | None = None
    for tag, row in rows:
        if tag == CUSTOMER:
            customer = row
        elif customer is None:
            task.counters["orders of unknown customers"] += 1
        else:
            yield row["order_id"], {**customer, **row}


job = Job(mapper=mapper, reducer=reducer, sort_values=tag_of, reader=Csv(), name="join")

if __name__ == "__main__":
    job.main()
