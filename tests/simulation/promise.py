"""What is raised where a promise was broken."""


class Broken(AssertionError):
    """`promise` names the invariant: I1 … I9, as in the design; `detail` says what was seen."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise, self.detail = promise, detail
