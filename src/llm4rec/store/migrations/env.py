"""Run by Alembic: migrate the database of the connection that `tables.migrate` gives."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.get_main_option("version_table"),
    transactional_ddl=True,  # SQLite's too: the log appears whole or not at all
)
context.run_migrations()
