"""Called by Alembic. The connection is given by `registry.migrating`; there is no alembic.ini and no URL here."""

from alembic import context

from registry import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    transactional_ddl=True,  # SQLite too: the transaction has begun already, with the write lock
)
with context.begin_transaction():
    context.run_migrations()
