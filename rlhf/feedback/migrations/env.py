"""What Alembic runs: every step, on the connection and in the transaction of the caller."""

from alembic import context

from rlhf.feedback.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
