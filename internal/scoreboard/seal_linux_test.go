package scoreboard

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process with the descriptor of a cell cannot change its size or add seals.
// It can punch a hole, and the cell is then damaged.
func TestSeals(t *testing.T) {
	c, fd := newCell(t)
	defer unix.Close(fd)
	w, err := Open(fd, noNotify)
	if err != nil {
		t.Fatal(err)
	}
	w.Served(1)
	for n := range int64(2 * size) {
		if err := unix.Ftruncate(fd, n); n != size && err != unix.EPERM {
			t.Fatalf("truncated to %d: %v", n, err)
		}
	}
	for _, seal := range []int{unix.F_SEAL_WRITE, unix.F_SEAL_FUTURE_WRITE} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seal); err != unix.EPERM {
			t.Errorf("seal %#x: %v", seal, err)
		}
	}
	if got := c.Read(); got != (Status{C: None, Served: 1}) {
		t.Errorf("%+v", got)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil {
		t.Fatal(err)
	}
	if got := c.Read(); !got.Damaged || got.Served != 1 {
		t.Errorf("with a hole: %+v", got)
	}
}

// A file on a tmpfs cannot be sealed. The error differs from the one for a
// disk.
func TestFileOnTmpfs(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err != nil {
		t.Skip("there is no /dev/shm")
	}
	t.Setenv("TMPDIR", "/dev/shm")
	fd, err := unlinkedFile()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// 10,000 cells leave no mapping after Close.
func TestManyCells(t *testing.T) {
	mappings := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(maps), "memfd:scoreboard")
	}
	before := mappings()
	cells := make([]*Cell, 10_000)
	for i := range cells {
		c, fd := newCell(t)
		unix.Close(fd)
		cells[i] = c
	}
	var notifier Notifier
	if idle := notifier.Arm(cells, 100, 9_000); idle != len(cells) {
		t.Errorf("%d idle", idle)
	}
	for _, c := range cells {
		c.Close()
	}
	if after := mappings(); after != before {
		t.Errorf("%d leftover mappings", after-before)
	}
}
