"""What every error of the command line must look like."""

from tests.operations.scene import Done, Scene, archiver


def check(done: Done, code: int, *texts: str) -> None:
    """``done`` failed with one line, and possibly a hint, that hold ``texts``."""
    assert done.code == code, (done.output, done.errors)
    assert "Traceback" not in done.errors
    assert "internal error" not in done.errors
    # Phases may come first, in human output.
    start = next(index for index, line in enumerate(done.errors.splitlines()) if line.startswith("archiver: "))
    message, *hints = done.errors.splitlines()[start:]
    assert len(hints) <= 1
    assert all(hint.startswith("hint: ") and hint.endswith(".") for hint in hints), hints
    sentence = message.removeprefix("archiver: ")
    assert not sentence.endswith(".")
    assert sentence[0] == sentence[0].lower() or sentence[0] in "/-"
    for text in texts:
        assert text in done.errors


def backup(scene: Scene, *arguments: str) -> Done:
    return archiver("backup", *arguments, "--config", str(scene.config))
