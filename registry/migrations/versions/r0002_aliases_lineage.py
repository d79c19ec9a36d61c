"""Aliases, the `previous` pointer, lineage of versions and their evaluations.

New columns have defaults, so that a program from before still writes while a fleet is being upgraded.
"""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("previous", sa.String(64), nullable=False, server_default=sa.text("''")))
    op.add_column("versions", sa.Column("lineage", sa.JSON, nullable=False, server_default="{}"))
    op.create_table(
        "aliases",
        sa.Column("model", sa.String(64), sa.ForeignKey("models.name"), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("updated_s", sa.Float, nullable=False),
    )
    op.create_table(
        "evaluations",
        sa.Column("entry_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False, index=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("time_s", sa.Float, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError(
        "going back would drop lineage, aliases and evaluations; restore a copy from before the upgrade instead"
    )
