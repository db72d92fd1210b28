"""What Prefect does by itself once `rlhf deploy` has run: tell a webhook how runs end and what the gate says."""

import json
from typing import TYPE_CHECKING
from uuid import UUID

from flows.events import CLOSED, GATE, WEAKER

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

FLOWS = ["rlhf-recipe", "rlhf-reevaluate"]
BLOCK = "rlhf-notify"
PREFIX = "rlhf: "
"""Begins the names of the automations that are ours: others' are left alone."""

# What a state change of a flow run says; `text` is what chat services show.
_RUN = {
    "text": "{{ flow.name }} / {{ flow_run.name }}: {{ flow_run.state.name }}",
    "state": "{{ flow_run.state.name }}",
    "flow_run_id": "{{ flow_run.id }}",
    "url": "{{ flow_run|ui_url }}",
}
# Messages of people and errors hold quotes, so what comes out of a payload is quoted by Jinja.
_EVENT = '{"text": {{ event.payload.text|tojson }}, "event": {{ event.event|tojson }}, "payload": {{ event.payload|tojson }}}'


def keep_automations(notify_url: str | None) -> list[str]:
    """Bring the server's automations to what this file says, and return their names; without an address there are none.

    Doing it again changes nothing; an automation that somebody has paused stays paused.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        wanted = _notifications(_webhook(notify_url)) if notify_url else []
        known = {found.name: found for found in client.read_automations() if found.name.startswith(PREFIX)}
        for automation in wanted:
            if (found := known.pop(automation.name, None)) is None:
                client.create_automation(automation)
            else:
                client.update_automation(found.id, automation.model_copy(update={"enabled": found.enabled}))
        for left in known.values():
            client.delete_automation(left.id)
    return [automation.name for automation in wanted]


def _webhook(url: str) -> UUID:
    """Keep the address in a block of Prefect's, which encrypts it and shows it to nobody."""
    from prefect.blocks.webhook import Webhook

    block = Webhook(method="POST", url=url, headers={"Content-Type": "application/json"})
    kept = block.save(BLOCK, overwrite=True)
    assert isinstance(kept, UUID), "called where no event loop runs, it is done when it returns"
    return kept


def _notifications(webhook: UUID) -> list["AutomationCore"]:
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    def automation(
        name: str, payload: str, expect: set[str], resource: str, related: dict[str, str | list[str]]
    ) -> AutomationCore:
        return AutomationCore(
            name=f"{PREFIX}{name}",
            trigger=EventTrigger(
                expect=expect,
                match={"prefect.resource.id": resource},
                match_related=related,
                posture=Posture.Reactive,
                threshold=1,
                within=0,
            ),
            actions=[CallWebhook(block_document_id=webhook, payload=payload)],
        )

    ours: dict[str, str | list[str]] = {"prefect.resource.role": "flow", "prefect.resource.name": FLOWS}
    states = "prefect.flow-run."
    return [
        automation(
            "a run has failed",
            json.dumps(_RUN),
            {f"{states}{state}" for state in ("Failed", "Crashed", "TimedOut")},
            f"{states}*",
            ours,
        ),
        automation("people are waited for", json.dumps(_RUN), {f"{states}Suspended"}, f"{states}*", ours),
        automation("the gate has spoken", _EVENT, {f"{GATE}.*", WEAKER}, "rlhf.recipe.*", {}),
        automation("a batch is closed", _EVENT, {CLOSED}, "rlhf.rankings", {}),
    ]
