"""asyncpg through the gate. Who and where is in the environment."""

import asyncio
import datetime
import decimal
import io
import json
import uuid

import asyncpg


async def pooled():
    async with asyncpg.create_pool(min_size=2, max_size=4) as pool:
        numbers = await asyncio.gather(*(pool.fetchval("select $1::int * 2", n) for n in range(60)))
        assert numbers == [2 * n for n in range(60)]
        async with pool.acquire() as conn:
            try:
                await conn.execute("select pg_sleep(300)", timeout=0.5)
                raise AssertionError("it slept")
            except asyncio.TimeoutError:
                pass
            assert await conn.fetchval("select 'usable'") == "usable"


async def alone():
    conn = await asyncpg.connect()
    await conn.execute("create table kinds (i int, t text, n numeric, u uuid, at timestamptz, d date, s interval, b bytea, a text[], j jsonb)")
    values = (
        7,
        "it's ☃",
        decimal.Decimal("12.50"),
        uuid.UUID(int=5),
        datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc),
        datetime.date(2026, 11, 22),
        datetime.timedelta(days=1, seconds=2),
        b"\x00\xff",
        ["a", None, 'b "c"'],
        json.dumps({"a": [1]}),
    )
    insert = await conn.prepare("insert into kinds values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
    await insert.fetch(*values)
    row = tuple(await conn.fetchrow("select * from kinds"))
    assert row[:9] == values[:9] and json.loads(row[9]) == {"a": [1]}, row
    async with conn.transaction():
        seen = [row["id"] async for row in conn.cursor("select id from items order by id", prefetch=7)]
        assert seen == list(range(1, 101))
        cursor = await conn.cursor("select id from items order by id")
        assert len(await cursor.fetch(30)) == 30 and await cursor.forward(10) == 10
    await conn.executemany("insert into items values ($1, $2)", [(1000 + n, "many") for n in range(1000)])
    records = [(3000 + n, f"copied\t{n}") for n in range(2000)]
    assert await conn.copy_records_to_table("items", records=records) == "COPY 2000"
    out = io.BytesIO()
    await conn.copy_from_query("select * from items where id >= $1", 3000, output=out, format="csv")
    assert out.getvalue().count(b"\n") == 2000
    try:
        async with conn.transaction():
            await conn.execute("delete from items where id >= 1000")
            await conn.fetch("select 1 / 0")
    except asyncpg.DivisionByZeroError:
        pass
    assert await conn.execute("delete from items where id >= 1000") == "DELETE 3000"
    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("jobs", lambda *told: heard.set_result(told[2:]))
    await conn.execute("select pg_notify('jobs', 'done')")
    assert await asyncio.wait_for(heard, 30) == ("jobs", "done")
    warned = []
    conn.add_log_listener(lambda _, message: warned.append(message.message))
    await conn.execute("do $$ begin raise warning 'look out'; end $$")
    assert warned == ["look out"]
    await conn.close()


asyncio.run(pooled())
asyncio.run(alone())
