"""SQLAlchemy through the gate, with a pool, on psycopg and on asyncpg. Who and where is in the environment."""

import asyncio
import os
import ssl
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import ForeignKey, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def with_psycopg():
    engine = create_engine("postgresql+psycopg://", pool_size=3, max_overflow=0, pool_pre_ping=True)
    connected = []
    event.listen(engine, "connect", lambda connection, _: connected.append(connection))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Author(name=f"author {n}", books=[Book(title=f"book {n}.{m}") for m in range(5)]) for n in range(40))
        session.commit()
        try:
            with session.begin_nested():
                session.add(Author(name="author 1"))
                session.flush()
            raise AssertionError("it is unique")
        except IntegrityError:
            pass
        assert session.scalar(select(func.count()).select_from(Book)) == 200

    def titles(n):
        with Session(engine) as session:
            author = session.scalars(select(Author).where(Author.name == f"author {n}")).one()
            return len(author.books)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(titles, range(40))) == [5] * 40
    assert len(connected) <= 3
    found = inspect(engine)
    assert {"authors", "books"} <= set(found.get_table_names())
    assert found.get_foreign_keys("books")[0]["referred_table"] == "authors"
    with engine.connect().execution_options(stream_results=True, max_row_buffer=20) as connection:
        assert sum(1 for _ in connection.execute(select(Book.id))) == 200
    engine.dispose()


async def with_asyncpg():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    engine = create_async_engine("postgresql+asyncpg://", pool_size=2, connect_args={"ssl": context})

    async def count(n):
        async with engine.connect() as connection:
            return (await connection.execute(text("select count(*) from books where id > :n"), {"n": n})).scalar()

    assert await asyncio.gather(*(count(0) for _ in range(10))) == [200] * 10
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


with_psycopg()
asyncio.run(with_asyncpg())
