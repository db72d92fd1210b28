"""One process at a time, in a folder and in a bucket."""

import threading

from rlhf.adapters import leases
from rlhf.adapters.leases import Lease, claim
from rlhf.adapters.object_store import ObjectStore
from rlhf.adapters.presence import Watch, present


def test_of_many_at_once_one_has_it(store: ObjectStore) -> None:
    with (
        present(store, tracking="here", flow_run_id=None) as one,
        present(store, tracking="here", flow_run_id=None) as two,
    ):
        found: list[Lease | str] = []
        start = threading.Barrier(8)

        def take(token: str) -> None:
            start.wait()
            found.append(claim(store, "sft/key", token, Watch(store)))

        threads = [threading.Thread(target=take, args=(t,)) for t in [one.token, two.token] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holders = {lease.holder for lease in found if isinstance(lease, Lease)}
        assert len(found) == 8
        assert len(holders) == 1
        # The others are told who has it.
        assert {name for name in found if isinstance(name, str)} == holders


def test_it_passes_on_when_it_is_released(store: ObjectStore) -> None:
    with present(store, tracking="here", flow_run_id=None) as one:
        first = claim(store, "sft/key", one.token, Watch(store))
        assert isinstance(first, Lease)
        assert leases.held(store, "sft/key", Watch(store))
        first.release()
        assert not leases.held(store, "sft/key", Watch(store))
        with present(store, tracking="here", flow_run_id=None) as two:
            assert isinstance(claim(store, "sft/key", two.token, Watch(store)), Lease)
            assert claim(store, "sft/key", one.token, Watch(store)) == two.token


def test_other_work_is_free(store: ObjectStore) -> None:
    with present(store, tracking="here", flow_run_id=None) as one:
        claim(store, "sft/key", one.token, Watch(store))
        assert isinstance(claim(store, "sft/other", "mine", Watch(store)), Lease)
        assert isinstance(claim(store, "sft/ke", "mine", Watch(store)), Lease)


def test_a_listing_that_is_older_than_the_records_gives_it_to_nobody_twice(store: ObjectStore) -> None:
    class Late:
        """A store whose listings lag behind, as those of some S3 servers do."""

        read, write, remove, write_once = store.read, store.write, store.remove, store.write_once

        def list_keys(self, prefix: str) -> list[str]:
            return store.list_keys(prefix)[:1]

    with present(store, tracking="here", flow_run_id=None) as one:
        for _ in range(3):
            lease = claim(store, "sft/key", one.token, Watch(store))
            assert isinstance(lease, Lease)
            lease.release()
        claim(store, "sft/key", one.token, Watch(store))
        assert claim(Late(), "sft/key", "mine", Watch(store)) == one.token
