"""Whether a process is closed to whoever has no business with it, and what is said where it is not."""

from collections.abc import Sequence

import structlog

from millrace.settings import Settings

log = structlog.get_logger()


def check_closed(settings: Settings, doors: Sequence[str] = ()) -> None:
    """`doors` are what stands open besides Redis, each as «what it is: the setting that closes it».

    Raises ValueError, which names all of them, where security is required; otherwise one line of the log does.
    """
    found = [*doors, *filter(None, [settings.redis_server().weakness])]
    if not found:
        return
    if settings.security == "required":
        raise ValueError(f"security is required, and open is this: {'; '.join(found)}")
    log.warning("security.off", open=found, hint="MILLRACE_SECURITY=required refuses to start so")
