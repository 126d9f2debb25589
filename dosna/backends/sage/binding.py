"""Compile the binding to Motr that the backend sage needs, against the headers of this machine.

The command ::

    python -m dosna.backends.sage.binding --prefix /opt/motr

needs cffi, a C compiler, and Motr's headers and library below the prefix. The compiler takes the
layouts of Motr's structures, which differ between versions, from these headers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dosna.errors import ConfigurationError, MissingDependencyError
from dosna.registry import needing

__all__ = ["build", "main"]

_MODULE = "_dosna_motr"

_DECLARATIONS = """
typedef uint64_t m0_bcount_t;
typedef uint64_t m0_bindex_t;
typedef uint64_t m0_time_t;

struct m0 { ...; };
struct m0_client { ...; };
struct m0_thread { ...; };
struct m0_uint128 { uint64_t u_hi; uint64_t u_lo; };
struct m0_fid { uint64_t f_container; uint64_t f_key; };
struct m0_vec { uint32_t v_nr; m0_bcount_t *v_count; };
struct m0_indexvec { struct m0_vec iv_vec; m0_bindex_t *iv_index; };
struct m0_bufvec { struct m0_vec ov_vec; void **ov_buf; };
struct m0_sm { int32_t sm_rc; ...; };
struct m0_op { struct m0_sm op_sm; ...; };
struct m0_entity { struct m0_sm en_sm; ...; };
struct m0_obj_attr { m0_bcount_t oa_bshift; size_t oa_buf_size; ...; };
struct m0_obj { struct m0_entity ob_entity; struct m0_obj_attr ob_attr; ...; };
struct m0_idx { struct m0_entity in_entity; ...; };
struct m0_realm { struct m0_entity re_entity; ...; };
struct m0_container { struct m0_realm co_realm; };
struct m0_idx_dix_config { bool kc_create_meta; ...; };
struct m0_config {
    bool mc_is_oostore;
    bool mc_is_read_verify;
    const char *mc_local_addr;
    const char *mc_ha_addr;
    const char *mc_process_fid;
    const char *mc_profile;
    uint32_t mc_tm_recv_queue_min_len;
    uint32_t mc_max_rpc_msg_size;
    int mc_idx_service_id;
    void *mc_idx_service_conf;
    ...;
};

enum m0_obj_opcode { M0_OC_READ, M0_OC_WRITE, ... };
enum m0_idx_opcode { M0_IC_GET, M0_IC_PUT, M0_IC_DEL, M0_IC_NEXT, ... };
enum m0_op_state { M0_OS_STABLE, M0_OS_FAILED, ... };
enum m0_idx_service_type { M0_IDX_DIX, ... };
enum m0_op_obj_flags { M0_OOF_SYNC, ... };
enum m0_op_idx_flags { M0_OIF_OVERWRITE, M0_OIF_SYNC_WAIT, ... };

extern const struct m0_uint128 M0_UBER_REALM;

struct m0 *m0_get(void);
int m0_thread_adopt(struct m0_thread *thread, struct m0 *instance);
void m0_thread_shun(void);
void m0_trace_set_mmapped_buffer(bool val);
void m0_free(void *data);
m0_time_t m0_time_from_now(uint64_t secs, long ns);

int m0_client_init(struct m0_client **m0c, struct m0_config *conf, bool init_m0);
void m0_client_fini(struct m0_client *m0c, bool fini_m0);
void m0_container_init(struct m0_container *con, struct m0_realm *parent,
                       const struct m0_uint128 *id, struct m0_client *instance);

void m0_obj_init(struct m0_obj *obj, struct m0_realm *parent, const struct m0_uint128 *id,
                 uint64_t layout_id);
void m0_obj_fini(struct m0_obj *obj);
int m0_obj_op(struct m0_obj *obj, enum m0_obj_opcode opcode, struct m0_indexvec *ext,
              struct m0_bufvec *data, struct m0_bufvec *attr, uint64_t mask, uint32_t flags,
              struct m0_op **op);
void m0_idx_init(struct m0_idx *idx, struct m0_realm *parent, const struct m0_uint128 *id);
void m0_idx_fini(struct m0_idx *idx);
int m0_idx_op(struct m0_idx *idx, enum m0_idx_opcode opcode, struct m0_bufvec *keys,
              struct m0_bufvec *vals, int32_t *rcs, uint32_t flags, struct m0_op **op);
int m0_entity_create(struct m0_fid *pool, struct m0_entity *entity, struct m0_op **op);
int m0_entity_delete(struct m0_entity *entity, struct m0_op **op);
int m0_entity_open(struct m0_entity *entity, struct m0_op **op);

void m0_op_launch(struct m0_op **op, uint32_t nr);
int32_t m0_op_wait(struct m0_op *op, uint64_t bits, m0_time_t to);
int32_t m0_rc(const struct m0_op *op);
void m0_op_fini(struct m0_op *op);
void m0_op_free(struct m0_op *op);
"""

_SOURCE = """
#include "config.h"
#include "lib/types.h"
#include "lib/memory.h"
#include "lib/thread.h"
#include "lib/time.h"
#include "lib/trace.h"
#include "lib/user_space/trace.h"
#include "module/instance.h"
#include "motr/client.h"
#include "motr/client_internal.h"
#include "motr/idx.h"
"""


def build(prefix: str | os.PathLike[str], into: str | os.PathLike[str] | None = None) -> Path:
    """Compile the binding.

    Parameters
    ----------
    prefix : path
        The folder where Motr is installed, which has ``include/motr`` and ``lib``.
    into : path, optional
        The folder for the module, by default that of this Python's packages. Another one has to
        be on ``sys.path`` where the backend is used.

    Returns
    -------
    pathlib.Path
        The path of the module.

    Raises
    ------
    MissingDependencyError
        cffi is not installed.
    ConfigurationError
        Motr's headers or library do not exist, or cannot be compiled against.
    """
    folder = Path(prefix).absolute()
    ffi = _source(folder)
    target = Path(sysconfig.get_path("platlib") if into is None else into).absolute()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            made = Path(ffi.compile(tmpdir=scratch))
            target.mkdir(parents=True, exist_ok=True)
            # A process that has loaded the old module keeps it.
            whole = target / f".{made.name}"
            whole.write_bytes(made.read_bytes())
            whole.replace(target / made.name)
        except OSError as error:
            raise ConfigurationError(f"{target} cannot be written to: {error}") from error
        except Exception as error:
            # These are errors of setuptools or distutils, whichever cffi uses.
            raise ConfigurationError(
                f"the binding cannot be compiled against {folder}: {error}; the compiler's own "
                "words are above"
            ) from error
    return target / made.name


def _source(folder: Path) -> Any:
    """Return the binding to the Motr in a folder as cffi compiles it."""
    with needing("the binding to Motr needs", "sage"):
        from cffi import FFI
    include, library = folder / "include" / "motr", folder / "lib"
    for file, what in (
        (include / "motr" / "client.h", "Motr's headers"),
        (library / "libmotr.so", "Motr's library"),
    ):
        if not file.exists():
            raise ConfigurationError(
                f"{what} are not below {folder}: there is no {file}; give the prefix that Motr "
                "was installed to (its development package too)"
            )
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    ffi.set_source(
        _MODULE,
        _SOURCE,
        include_dirs=[str(include)],
        library_dirs=[str(library)],
        runtime_library_dirs=[str(library)],
        libraries=["motr"],
        define_macros=[("M0_EXTERN", "extern"), ("M0_INTERNAL", "")],
        extra_compile_args=["-w"],
    )
    return ffi


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile the binding and check that it can be loaded."""
    parser = argparse.ArgumentParser(
        prog="python -m dosna.backends.sage.binding",
        description="compile the binding to Motr that the backend sage needs",
    )
    parser.add_argument("--prefix", default="/usr", help="where Motr is installed (/usr)")
    parser.add_argument("--into", help="folder for the module (that of this Python's packages)")
    options = parser.parse_args(arguments)
    try:
        made = build(options.prefix, options.into)
    except (ConfigurationError, MissingDependencyError) as error:
        print(error, file=sys.stderr)
        return 1
    # This runs in a process of its own, because Motr's library stays in any process that loads
    # it.
    loads = subprocess.run(
        [sys.executable, "-c", f"import {_MODULE}"],
        cwd=made.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if loads.returncode:
        print(f"{made} was compiled, but does not load:\n{loads.stderr}", file=sys.stderr)
        return 1
    print(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
