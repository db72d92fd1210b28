"""Opening the database: migrations, wrong addresses, servers that do not answer."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from rlhf.feedback import migrations
from rlhf.feedback.database import REVISION, connect
from rlhf.feedback.schema import Base
from schemas.errors import ConfigError, FeedbackUnreachable


def test_the_migrations_make_what_the_models_say(feedback):
    with feedback.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert found == []
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == REVISION


def test_processes_that_start_together_migrate_once(url):
    stores = []
    threads = [threading.Thread(target=lambda: stores.append(connect(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for store in stores:
        store.close()


def test_a_database_of_a_newer_version_is_refused(feedback, url):
    with feedback.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="RLHF_FEEDBACK_URL"):
        connect(url)


@pytest.mark.parametrize("wrong", ["mysql://x/y", "nonsense", "sqlite://"])
def test_a_url_that_is_no_database_is_refused(wrong):
    with pytest.raises(ConfigError, match="RLHF_FEEDBACK_URL"):
        connect(wrong)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(FeedbackUnreachable, match=r"rlhf:\*\*\*@127.0.0.1:9") as caught:
        connect("postgresql://rlhf:hidden@127.0.0.1:9/x")
    assert "hidden" not in str(caught.value)
