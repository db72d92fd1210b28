from rlhf.feedback import annotators


def test_tokens_are_kept_hashed_and_can_be_revoked_and_renewed(feedback):
    token = annotators.add(feedback, "ann", "admin")
    public, _, secret = token.partition(".")
    ann = annotators.signed_in(feedback, token)
    assert (ann.name, ann.role) == ("ann", "admin")
    assert secret not in ann.token_hash
    for wrong in ("", "x", public, f"{public}.", f"{public}.{secret}x", f"{public}x.{secret}", "." + secret):
        assert annotators.signed_in(feedback, wrong) is None
    annotators.revoke(feedback, "ann")
    assert annotators.signed_in(feedback, token) is None
    renewed = annotators.add(feedback, "ann", "rater")
    assert annotators.signed_in(feedback, token) is None
    assert annotators.signed_in(feedback, renewed).role == "rater"


def test_a_simulated_rater_has_no_token(feedback):
    one = annotators.simulated(feedback, "simulated-0")
    assert annotators.simulated(feedback, "simulated-0").id == one.id
    assert one.token_hash is None
    assert annotators.signed_in(feedback, ".") is None
