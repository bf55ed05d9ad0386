"""psycopg 3 through the gate. Who and where is in the environment."""

import asyncio
import datetime
import decimal
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

VALUES = (
    7,
    "it's ☃",
    decimal.Decimal("12.50"),
    uuid.UUID(int=5),
    datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc),
    b"\x00\xff",
    [1, 2, 3],
    Jsonb({"a": [1]}),
    None,
)


def sync():
    with psycopg.connect() as conn:
        conn.execute(
            "create table kinds (i int, t text, n numeric, u uuid, at timestamptz, b bytea, a int[], j jsonb, x text)"
        )
        marks = ", ".join(["%b"] * 8 + ["%s"])
        for binary in (False, True):
            conn.execute("delete from kinds")
            conn.execute(f"insert into kinds values ({marks})" if binary else f"insert into kinds values ({', '.join(['%s'] * 9)})", VALUES)
            row = conn.cursor(binary=binary).execute("select * from kinds").fetchone()
            assert row == VALUES[:7] + ({"a": [1]}, None), row
        conn.commit()
        for n in range(8):  # prepared by itself from the fifth on
            assert conn.execute("select name from items where id = %s", (n + 1,)).fetchone() == (f"item {n + 1}",)
        assert conn.execute("select %s::int + 1", (1,), prepare=True).fetchone() == (2,)
        with conn.cursor(name="by_server") as cursor:
            cursor.itersize = 10
            cursor.execute("select id from items order by id")
            assert [row[0] for row in cursor] == list(range(1, 101))
        try:
            conn.execute("select 1 / 0")
            raise AssertionError("it divides")
        except errors.DivisionByZero:
            conn.rollback()
        with conn.transaction():
            conn.execute("delete from kinds")
            try:
                with conn.transaction():
                    conn.execute("insert into nowhere values (1)")
            except errors.UndefinedTable:
                pass
        assert conn.execute("select count(*) from kinds").fetchone() == (0,)


def copies():
    rows = [(n, f"name\tof {n}") for n in range(2000)]
    with psycopg.connect() as conn:
        conn.execute("create table copied (id int, name text)")
        with conn.cursor().copy("copy copied from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        with conn.cursor().copy("copy copied from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for row in rows:
                copy.write_row(row)
        with conn.cursor().copy("copy (select * from copied order by id) to stdout") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == [row for row in rows for _ in range(2)]
        try:
            with conn.cursor().copy("copy copied from stdin") as copy:
                copy.write("no number\tx\n")
            raise AssertionError("it was copied")
        except errors.InvalidTextRepresentation:
            conn.rollback()


def pipeline():
    with psycopg.connect(autocommit=True) as conn:
        with conn.pipeline():
            cursors = [conn.execute("select %s::int * 2", (n,)) for n in range(200)]
            assert [cursor.fetchone()[0] for cursor in cursors] == [2 * n for n in range(200)]
        try:
            with conn.pipeline() as pipe:
                conn.execute("select 1")
                conn.execute("select nonsense")
                conn.execute("select 2")
                pipe.sync()
            raise AssertionError("it made sense")
        except errors.UndefinedColumn:
            pass
        conn.cursor().executemany("insert into items values (%s, %s)", [(1000 + n, "many") for n in range(500)])
        assert conn.execute("delete from items where id >= 1000").rowcount == 500


def cancels_and_notifies():
    with psycopg.connect(autocommit=True) as conn:
        conn.execute("listen jobs")
        conn.execute("notify jobs, 'done'")
        told = next(conn.notifies(timeout=30))
        assert (told.channel, told.payload) == ("jobs", "done")
        timer = threading.Timer(0.5, conn.cancel_safe)
        timer.start()
        try:
            conn.execute("select pg_sleep(300)")
            raise AssertionError("it slept")
        except errors.QueryCanceled:
            pass
        timer.join()
        assert conn.execute("select 1").fetchone() == (1,)


async def one_of_many(number):
    async with await psycopg.AsyncConnection.connect() as conn:
        async with conn.pipeline():
            cursor = await conn.execute("select %s::int, pg_backend_pid()", (number,))
            return await cursor.fetchone()


async def at_once():
    rows = await asyncio.gather(*(one_of_many(number) for number in range(5)))
    assert [row[0] for row in rows] == list(range(5)) and len({row[1] for row in rows}) == 5


sync()
copies()
pipeline()
cancels_and_notifies()
asyncio.run(at_once())
