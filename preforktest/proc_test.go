package preforktest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
)

func init() { Register("noreap", noReap) }

// noReap starts a child that exits at once, and does not reap it.
func noReap() {
	if len(os.Args) > 1 {
		return
	}
	cmd := exec.Command(os.Args[0], "child")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println("child", cmd.Process.Pid)
	waitUntilKilled()
}

func TestZombies(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	p := Start(t, "noreap")
	child, _ := strconv.Atoi(p.Expect(`^child (\d+)$`)[1])
	WaitFor(t, "a zombie", func() bool {
		zombies, err := Zombies(p.PID())
		return len(zombies) == 1 && zombies[0].PID == child && zombies[0].PPID == p.PID() && err == nil
	})
	if left, err := p.Descendants(); len(left) > 0 || err != nil {
		t.Errorf("descendants %v, %v", left, err)
	}
}

func TestChildren(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	p := Start(t, "pool", "-n", "2")
	p.ExpectN(2, "^worker up")
	workers, err := Children(p.PID())
	if len(workers) != 2 || err != nil {
		t.Fatalf("%v, %v", workers, err)
	}
	for _, w := range workers {
		if len(w.Cmdline) != 4 || w.Cmdline[1] != "-worker" || w.PPID != p.PID() || w.Comm == "" {
			t.Errorf("%+v", w)
		}
	}
	if zombies, err := Zombies(p.PID()); len(zombies) > 0 || err != nil {
		t.Errorf("zombies %v, %v", zombies, err)
	}
}

func TestNoSuchProcess(t *testing.T) {
	t.Parallel()
	want := fs.ErrNotExist
	if runtime.GOOS != "linux" {
		want = errors.ErrUnsupported
	}
	const pid = 1<<22 + 1 // above the highest pid of Linux
	_, err1 := Descriptors(pid)
	_, err2 := Threads(pid)
	_, err3 := ContextSwitches(pid)
	_, err4 := PrivateMemory(pid)
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, want) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestOwnDescriptors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not supported")
	}
	open, err := Descriptors(os.Getpid())
	for fd := range 3 {
		if _, ok := open[fd]; !ok {
			t.Errorf("%d is not in %v, %v", fd, open, err)
		}
	}
}
