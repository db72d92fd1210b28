"""What an admin sees: progress, agreement, each rater's habits, and the exports."""

from fastapi import APIRouter, BackgroundTasks, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from rlhf.feedback import annotators, batches, collected, exports, raters
from rlhf.feedback.agreement import agreement
from rlhf.feedback.schema import Batch
from rlhf.feedback.votes import votes
from rlhf.feedback.web.requests import AdminVisiting, Fields, Visit, render, signed
from schemas.errors import NotFound

router = APIRouter(prefix="/admin")


@router.get("", response_model=None)
def overview(visit: AdminVisiting) -> Response:
    """List all batches and everybody who may answer."""
    people = [one for one in annotators.everybody(visit.site.feedback) if one.role != "simulated"]
    values = {"batches": batches.listed(visit.site.feedback), "people": people}
    return render("admin.html.j2", {**values, **signed(visit)})


@router.get("/batch/{batch_id}", response_model=None)
def batch(batch_id: int, visit: AdminVisiting) -> Response:
    """Show one batch."""
    found = _find(visit, batch_id)
    standing = collected.standing(visit.site.feedback, batch_id)
    counted = [answer for answer in standing if not answer.excluded]
    flags: dict[str, int] = {}
    for answer in counted:
        for flag in (flag for given in answer.flags for flag in given):
            flags[flag] = flags.get(flag, 0) + 1
    values = {
        "batch": found,
        "agreement": agreement(votes(answer for answer in counted if answer.gold is None)),
        "raters": raters.statistics(standing),
        "flags": sorted(flags.items(), key=lambda item: -item[1]),
        "formats": exports.FORMATS,
    }
    return render("admin_batch.html.j2", {**values, **signed(visit)})


@router.post("/batch/{batch_id}/close", response_model=None)
def close(
    batch_id: int, request: Request, visit: AdminVisiting, fields: Fields, after: BackgroundTasks
) -> Response:
    """Close a batch, so that the run that waits for it goes on."""
    _find(visit, batch_id)
    batches.close(visit.site.feedback, batch_id, visit.annotator.name)
    after.add_task(request.app.state.on_closed)
    return RedirectResponse(f"/admin/batch/{batch_id}", 303)


@router.post("/batch/{batch_id}/rater/{rater_id}/{action}", response_model=None)
def change(batch_id: int, rater_id: int, action: str, visit: AdminVisiting, fields: Fields) -> Response:
    """Leave a rater's answers out, or let them count again."""
    _find(visit, batch_id)
    if annotators.get(visit.site.feedback, rater_id) is None or action not in ("exclude", "restore"):
        raise NotFound("There is no such rater or action; reload the page.")
    if action == "exclude":
        because = fields.get("because", [""])[0] or f"excluded by {visit.annotator.name}"
        annotators.exclude(visit.site.feedback, rater_id, because)
    else:
        annotators.restore(visit.site.feedback, rater_id)
    return RedirectResponse(f"/admin/batch/{batch_id}", 303)


@router.get("/batch/{batch_id}/export/{format_name}", response_model=None)
def export(batch_id: int, format_name: str, visit: AdminVisiting) -> Response:
    """Send the batch's rankings as a file."""
    if format_name not in exports.FORMATS:
        raise HTTPException(404, f"No format {format_name[:40]!r}; known: {', '.join(exports.FORMATS)}.")
    found = _find(visit, batch_id)
    content = exports.write(visit.site.feedback, batch_id, format_name)
    name = f"{found.name}-{format_name}.{exports.FORMATS[format_name].suffix}"
    # Always a download: a browser must never show responses as a page of ours.
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _find(visit: Visit, batch_id: int) -> Batch:
    return batches.find(visit.site.feedback, str(batch_id))
