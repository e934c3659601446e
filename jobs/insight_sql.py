"""SQL over the metrics, by DuckDB in this process or by Spark: the same statements give the same rows.

Statements are written so that both read them: names stand in double quotes, `explode` makes rows of a list, and no figure depends on an
order of additions (counts, sums of integers, least and greatest values).
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gristmill.jobs import engine, storage
from gristmill.udfs.errors import EngineError, InputError

Query = Callable[[str], list[tuple[Any, ...]]]
MEMORY = "1GB"             # that DuckDB takes before it goes to disk
SETTINGS = {"spark.sql.ansi.enabled": "true", "spark.sql.ansi.doubleQuotedIdentifiers": "true", "spark.sql.caseSensitive": "true",
            "spark.sql.session.timeZone": "UTC"}


def name(column: str) -> str:
    """A column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it; what the two would read differently is written as a number."""
    parts, plain = list[str](), ""
    for char in text:
        if char in "'\\" or ord(char) < 32:
            parts += [f"'{plain}'"] if plain else []
            parts.append(f"chr({ord(char)})")
            plain = ""
        else:
            plain += char
    parts += [f"'{plain}'"] if plain or not parts else []
    return parts[0] if len(parts) == 1 else f"concat({', '.join(parts)})"


def path(text: str) -> str:
    """A file as DuckDB has it where it takes nothing but a literal."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def opened(which: str, folders: Mapping[str, str]) -> Iterator[Query]:
    """query(statement) -> rows, with a table for each folder of Parquet files: {table: folder}."""
    with (_spark if which == "spark" else _duckdb)(folders) as query:
        yield query


@contextlib.contextmanager
def streamed(folders: Mapping[str, str], statement: str) -> Iterator[Iterator[tuple[Any, ...]]]:
    """The rows of one statement by DuckDB, a few thousand at a time."""
    with _connected(folders) as connection:
        found = _run(connection, statement)
        yield (row for rows in iter(lambda: found.fetchmany(10_000), []) for row in rows)


@contextlib.contextmanager
def _duckdb(folders: Mapping[str, str]) -> Iterator[Query]:
    with _connected(folders) as connection:
        yield lambda statement: _run(connection, statement).fetchall()


def _run(connection: Any, statement: str) -> Any:
    import duckdb

    try:
        return connection.execute(statement)
    except duckdb.Error as error:
        raise InputError(f"DuckDB: {str(error).splitlines()[0]} in {statement[:200]}") from error


@contextlib.contextmanager
def _connected(folders: Mapping[str, str]) -> Iterator[Any]:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="gristmill-") as scratch:
        connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": scratch, "threads": os.cpu_count() or 1,
                                            "preserve_insertion_order": False, "autoinstall_known_extensions": False})
        try:
            connection.execute("CREATE MACRO explode(list) AS unnest(list)")
            for table, folder in folders.items():
                fs, _ = storage.filesystem(folder)
                if not storage.is_local(fs):
                    connection.register_filesystem(fs)
                files = [storage.join(folder, file) for file in storage.names(folder, ".parquet")]
                paths = [storage.filesystem(file)[1] if storage.is_local(fs) else file for file in files]
                _run(connection, f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{', '.join(map(path, paths))}])")
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def _spark(folders: Mapping[str, str]) -> Iterator[Query]:
    session = engine.spark_session().newSession()
    for key, value in SETTINGS.items():
        session.conf.set(key, value)
    session.conf.set("spark.sql.shuffle.partitions", str(2 * engine.parallelism("spark")))     # of 200, most would be empty
    for table, folder in folders.items():
        fs, local = storage.filesystem(folder)
        escaped = re.sub(r"([\\*?\[\]{}])", r"\\\1", local if storage.is_local(fs) else folder)      # else Hadoop reads a pattern
        session.read.parquet(escaped).createOrReplaceTempView(table)

    def query(statement: str) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in session.sql(statement).collect()]
        except Exception as error:        # PySpark has several
            raise EngineError(f"Spark SQL: {str(error).splitlines()[0]} in {statement[:200]}") from error

    yield query
