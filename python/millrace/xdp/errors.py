"""What can go wrong with a program before it runs."""

from __future__ import annotations


class CompileError(SyntaxError):
    """The function is not in the subset of Python that becomes an XDP program.

    Like any SyntaxError it has `filename`, `lineno`, `offset` and `text`, and a traceback shows the
    line with a caret. Its message says what to write instead.
    """


class VerifierError(OSError):
    """The kernel's verifier refused the program.

    `errno` is the kernel's, `reason` the verifier's last word, `log` all it said. `filename`,
    `lineno` and `text` are the Python line that the refused instruction comes from, where the log
    tells which instruction that is; `instruction` is its number.
    """

    def __init__(
        self,
        errno: int,
        message: str,
        *,
        reason: str,
        log: str,
        source: str | None = None,
        lineno: int | None = None,
        text: str | None = None,
        instruction: int | None = None,
    ) -> None:
        super().__init__(errno, message)
        self.reason = reason
        self.log = log
        self.filename = source
        self.lineno = lineno
        self.text = text
        self.instruction = instruction

    def __str__(self) -> str:
        return str(self.strerror)
