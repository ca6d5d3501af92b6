"""A guest book: Flask, Flask-SQLAlchemy and PostgreSQL under gunicorn, with five lines of gpool.

    $ pip install 'gpool[flask,sqlalchemy,psycopg,gunicorn]' Flask-SQLAlchemy
    $ cd examples
    $ export DATABASE_URL=postgresql+psycopg://localhost/postgres
    $ flask --app flask_app init
    $ gunicorn -c gunicorn.conf.py flask_app:app
    $ python -m gevent.monkey --module flask --app flask_app run --port 8000  # or so
    $ curl -d name=Ann localhost:8000
    $ curl --no-buffer localhost:8000/all
    $ flask --app flask_app gpool pools

The lines are marked (1) to (5); the last is in gunicorn.conf.py.  No view mentions a connection.
Two workers have pools of their own, so there are at most 2 * (5 + 5) connections.
"""

import os
from collections.abc import Iterator

from flask import Flask, Response, request, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Text, exc, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gpool.integrations.flask import GPool  # (1)
from gpool.integrations.sqlalchemy import SupervisedPool  # (2)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
    "poolclass": SupervisedPool,  # (3)
    "pool_size": 5, "max_overflow": 5, "pool_timeout": 10, "pool_pre_ping": True,
}  # fmt: skip
GPool(app)  # (4)


class Base(DeclarativeBase):
    """What the tables have in common."""


class Visit(Base):
    """Somebody was here."""

    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)


db = SQLAlchemy(app, model_class=Base)


@app.cli.command("init")
def init() -> None:
    """Make the table."""
    db.create_all()


@app.get("/")
def count() -> str:
    """Tell how many there were."""
    return f"{db.session.scalar(select(func.count()).select_from(Visit))} visits\n"


@app.post("/")
def add() -> str:
    """Note one more."""
    db.session.add(Visit(name=request.form["name"]))
    db.session.commit()
    return "welcome\n"


@app.get("/all")
def everybody() -> Response:
    """List them, row by row: the client may be slow, or hang up."""

    def lines() -> Iterator[str]:
        rows = select(Visit.name).order_by(Visit.id).execution_options(yield_per=100)
        for name in db.session.scalars(rows):
            yield f"{name}\n"

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.get("/sleep/<float:seconds>")
def sleep(seconds: float) -> str:
    """Be busy, in the database."""
    db.session.execute(select(func.pg_sleep(seconds)))
    return "slept\n"


@app.errorhandler(exc.OperationalError)
@app.errorhandler(exc.TimeoutError)
def unavailable(error: Exception) -> tuple[str, int]:
    """Say that the database is away, or busy."""
    return "come back later\n", 503
