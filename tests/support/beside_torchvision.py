"""Import this before peft, which imports torchvision.

One that was built for another torch can be imported only once training has seen to it. Without this, a test module that
is run alone would be skipped as if peft were not installed.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):  # without the extra [train], each module says so
    from stamp_deploy.training.model.timm_library import import_timm

    import_timm()
