"""The compiled tiler, and the top-level folders that install inside the package."""

import os
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZED = os.environ.get("STAMP_SANITIZED_BUILD") == "1"
CHECKED = SANITIZED or os.environ.get("STAMP_CHECKED_BUILD") == "1"
# builds of the kinds keep apart: none takes another's objects for its own
BUILD_BASE = "build/base-sanitized" if SANITIZED else "build/base-checked" if CHECKED else "build"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def packages() -> list[str]:
    found = ["stamp_deploy"]
    for folder in ("stamp_deploy", "training", "export"):
        name = folder if folder == "stamp_deploy" else f"stamp_deploy.{folder}"
        for root, _, files in os.walk(folder):
            if "__init__.py" in files:
                inner = os.path.relpath(root, folder).replace(os.sep, ".")
                found.append(name if inner == "." else f"{name}.{inner}")
    return sorted(set(found))


tiler = Extension(
    "stamp_deploy._tiler",
    ["csrc/_tiler.pyx", *sorted(glob("csrc/*.c"))],
    depends=sorted(glob("csrc/*.h") + glob("csrc/*.pxi")),
    include_dirs=["csrc", numpy.get_include()],
    libraries=["jpeg"],
    extra_compile_args=["-O3", "-std=gnu11", "-Wall", "-Wextra", *(["-UNDEBUG", "-g"] if CHECKED else ["-DNDEBUG"])]
    + (SANITIZE if SANITIZED else []),
    extra_link_args=SANITIZE if SANITIZED else [],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), ("STAMP_CHECKED", str(int(CHECKED)))],
)
extensions = [tiler] if os.path.exists("csrc/_tiler.pyx") else []

setup(
    packages=packages(),
    options={"build": {"build_base": BUILD_BASE}},
    include_package_data=False,
    package_dir={"stamp_deploy.training": "training", "stamp_deploy.export": "export"},
    package_data={
        "stamp_deploy": [
            "py.typed",
            "*.pyi",
            "html_page/*.css",
            "html_page/*.js",
            "html_page/*.j2",
            "writers/templates/*",
            "cases/templates/*",
            "viewer/static/*",
            "viewer/static/openseadragon/*",
        ],
        "stamp_deploy.training": ["recipes/*.toml", "heads/evaluation/templates/*"],
    },
    ext_modules=cythonize(
        extensions,
        build_dir=f"{BUILD_BASE}/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
        },
    ),
)
