"""Every error that a user can meet, and the exit code that goes with it.

RLHFError                   exit 1: the work failed (infrastructure, training)
├── InfrastructureError     what the work needs does not answer: a stage is tried again
│   ├── TrackingUnreachable     the MLflow server does not answer
│   ├── StoreUnreachable        the object store does not answer
│   ├── FeedbackUnreachable     the feedback database does not answer
│   ├── JudgeUnreachable        the endpoint of the LLM judge gives no verdicts
│   └── SamplerUnreachable      the server that draws PPO's responses does not answer
├── StoreRefused            the object store refuses access, or the bucket does not exist
├── ArtifactMissing         a ref names bytes that are not there
├── DigestMismatch          the bytes are not the ones that the ref names
├── DiskFull                there is no room for a model, a table or a checkpoint
├── LaunchFailed            the processes that compute a stage ended before it was done
├── PromotionConflict       the alias moved while a promotion was under way
├── TrainingDiverged        a loss or a weight is no longer finite
└── UserError               exit 2: the input is wrong; running again will not help
    ├── ConfigError         an unknown key, a wrong type, values that contradict each other
    ├── DataRejected        a file that cannot be used
    ├── AnswerRefused           a ranking, or a change to a batch, that cannot be taken
    ├── ModelNotUsable      a model or tokenizer that lacks what a stage needs
    └── NotFound            a recipe, file, run, version or alias that does not exist

Each takes one string (what was found, what was wanted, what to do), so that it survives pickling.
"""


class RLHFError(Exception):
    """The base of every error that this project raises on purpose."""

    exit_code = 1


class InfrastructureError(RLHFError, ConnectionError):
    """What the work needs does not answer; the same work may succeed later."""


class StoreRefused(RLHFError, PermissionError):
    """The object store refuses access, or the bucket does not exist."""


class ArtifactMissing(RLHFError, FileNotFoundError):
    """A ref names bytes that are not in the store."""


class DigestMismatch(RLHFError, ValueError):
    """The bytes read are not the ones that the ref names."""


class TrackingUnreachable(InfrastructureError):
    """The MLflow tracking server does not answer."""


class StoreUnreachable(InfrastructureError):
    """The object store does not answer."""


class DiskFull(RLHFError, OSError):
    """There is no room left to write to."""


class LaunchFailed(RLHFError, ChildProcessError):
    """The processes that compute a stage ended before it was done."""


class PromotionConflict(RLHFError, RuntimeError):
    """An alias moved while a promotion was under way."""


class FeedbackUnreachable(InfrastructureError):
    """The feedback database does not answer."""


class JudgeUnreachable(InfrastructureError):
    """The endpoint of the LLM judge gives no verdicts."""


class SamplerUnreachable(InfrastructureError):
    """The server that draws PPO's responses does not answer."""


class TrainingDiverged(RLHFError, ArithmeticError):
    """A loss or a weight is no longer finite."""


class UserError(RLHFError):
    """The input is wrong; running the same command again will not help."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """An unknown key, a wrong type, or values that contradict each other."""


class DataRejected(UserError, ValueError):
    """A data file that cannot be used."""


class AnswerRefused(UserError, ValueError):
    """A ranking, or a change to a batch, that cannot be taken."""


class ModelNotUsable(UserError, ValueError):
    """A model or tokenizer that lacks what a stage needs."""


class NotFound(UserError, LookupError):
    """A recipe, file, run, version or alias that does not exist."""
