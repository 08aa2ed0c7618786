/* A process that has the kernel name another file as its program: renamed PROGRAM SOCKET.
 *
 * Its own text and data are put into anonymous memory first, so that the file it was started from is mapped no more. A
 * child in a user namespace of its own, where it has every capability, shares its memory, and sets the file of both. The
 * process itself stays in the namespaces that it is in. Then it connects, says "ready", and waits.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct prctl_mm_map map;
static char stack[65536];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int set_file(void *unused) {
  (void)unused;
  return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0;
}

static void leave_own_file(void) {
  struct { unsigned long start, end; int protection; } parts[32];
  char self[512], line[1024], flags[8];
  int count = 0;
  self[readlink("/proc/self/exe", self, sizeof self - 1)] = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps) && count < 32) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx %7s", &start, &end, flags) != 3 || !strstr(line, self)) continue;
    parts[count].start = start;
    parts[count].end = end;
    parts[count++].protection =
        (flags[0] == 'r' ? PROT_READ : 0) | (flags[1] == 'w' ? PROT_WRITE : 0) | (flags[2] == 'x' ? PROT_EXEC : 0);
  }
  fclose(maps);
  for (int i = 0; i < count; i++) {
    size_t size = parts[i].end - parts[i].start;
    void *copy = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, (void *)parts[i].start, size);
    mprotect(copy, size, parts[i].protection);
    if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, parts[i].start) == MAP_FAILED) fail("mremap");
  }
}

int main(int count, char **arguments) {
  unsigned long long fields[56] = {0};
  char text[2048] = {0};
  int number = 3, status, file = count == 3 ? open(arguments[1], O_RDONLY) : -1;
  if (file < 0) fail("open");
  leave_own_file();
  FILE *stat = fopen("/proc/self/stat", "r");
  if (!fread(text, 1, sizeof text - 1, stat)) fail("stat");
  fclose(stat);
  for (char *part = strtok(strrchr(text, ')') + 2, " "); part && number < 56; part = strtok(0, " "))
    fields[number++] = strtoull(part, 0, 10);
  map.start_code = fields[26], map.end_code = fields[27], map.start_stack = fields[28];
  map.start_data = fields[45], map.end_data = fields[46], map.start_brk = fields[47];
  map.brk = (unsigned long)sbrk(0);
  map.arg_start = fields[48], map.arg_end = fields[49], map.env_start = fields[50], map.env_end = fields[51];
  map.exe_fd = file;
  int child = clone(set_file, stack + sizeof stack, CLONE_VM | CLONE_NEWUSER | SIGCHLD, 0);
  if (child < 0) fail("clone");
  if (waitpid(child, &status, 0) < 0 || status) fail("prctl");
  struct sockaddr_un there = {.sun_family = AF_UNIX};
  strncpy(there.sun_path, arguments[2], sizeof there.sun_path - 1);
  int connection = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(connection, (struct sockaddr *)&there, sizeof there)) fail("connect");
  puts("ready");
  fflush(stdout);
  return read(connection, text, 1) < 0;
}
