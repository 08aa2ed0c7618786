"""A PKCS#11 library that is as slow as a test says: SoftHSM's, with a pause before each signature."""

import subprocess
from pathlib import Path

from harness.lacking import lacking_program
from harness.softhsm import MODULE, SoftHsm

# PKCS#11 2.40, 6.1: the list of functions has its version and then their addresses; C_Sign is the 44th.
_SOURCE = """
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

typedef unsigned long result;
struct list { unsigned char version[2]; void *functions[68]; };
typedef result sign(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

static struct list ours;
static sign *real;

static result slow(unsigned long session, unsigned char *data, unsigned long size, unsigned char *to,
                   unsigned long *room) {
  struct timespec pause = {SECONDS, NANOSECONDS};
  if (to != NULL) nanosleep(&pause, NULL);
  return real(session, data, size, to, room);
}

result C_GetFunctionList(struct list **found) {
  void *library = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
  result (*get)(struct list **) = library ? (result (*)(struct list **))dlsym(library, "C_GetFunctionList") : NULL;
  struct list *theirs;
  result done = get ? get(&theirs) : 5;
  if (done != 0) return done;
  memcpy(&ours, theirs, sizeof ours);
  real = (sign *)ours.functions[43];
  ours.functions[43] = (void *)slow;
  *found = &ours;
  return 0;
}
"""


class SlowToken(SoftHsm):
    """A token of SoftHSM's whose signatures take so many seconds. Its library must be root's: it needs root."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(folder)
        lacking_program("cc")
        source, self.module = folder / "slow.c", str(folder / "slow.so")
        source.write_text(_SOURCE)
        whole = int(seconds)
        told = [f"-DSECONDS={whole}", f"-DNANOSECONDS={int((seconds - whole) * 1e9)}", f'-DMODULE="{MODULE}"']
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", *told, str(source), "-o", self.module, "-ldl"], check=True)
        Path(self.module).chmod(0o755)
