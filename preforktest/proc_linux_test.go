package preforktest

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"syscall"
	"testing"
)

func TestParseStat(t *testing.T) {
	for stat, want := range map[string]Proc{
		"1 (init) S 0 1 1 0":       {PID: 1, PPID: 0, State: 'S', Comm: "init"},
		"77 (a (b) c) d) Z 12 1 1": {PID: 77, PPID: 12, State: 'Z', Comm: "a (b) c) d"},
		"3 () R 2 ":                {PID: 3, PPID: 2, State: 'R'},
	} {
		if got, err := parseStat(stat); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%q: %+v, %v", stat, got, err)
		}
	}
	for _, stat := range []string{"", "1", "1 (x", ") (", "x (y) S 1", "1 (y) S", "1 (y) S z"} {
		if got, err := parseStat(stat); err == nil {
			t.Errorf("%q: %+v", stat, got)
		}
	}
}

func TestSumFields(t *testing.T) {
	text := []byte("head\nA:  1 kB\nAB: 2\nB:\t30\n")
	if n, err := sumFields(text, "A", "B"); n != 31 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := sumFields(text, "A", "C"); err == nil {
		t.Errorf("%d without C", n)
	}
}

func TestProcessNumbers(t *testing.T) {
	t.Parallel()
	p := Start(t, "pool")
	p.Expect("^ready$")
	open, err := Descriptors(p.PID())
	if open[0] != os.DevNull || open[1] != p.pipe || open[2] != p.pipe || err != nil {
		t.Errorf("descriptors %v, %v; want pipe %s", open, err, p.pipe)
	}
	if n, err := Threads(p.PID()); n < 2 || n > 100 || err != nil {
		t.Errorf("threads %d, %v", n, err)
	}
	if n, err := PrivateMemory(p.PID()); n < 1<<16 || n > 1<<30 || err != nil {
		t.Errorf("private memory %d, %v", n, err)
	}
	before, err := ContextSwitches(p.PID())
	if before < 1 || err != nil {
		t.Errorf("context switches %d, %v", before, err)
	}
	p.Signal(syscall.SIGURG) // wakes a thread
	WaitFor(t, "a context switch", func() bool {
		now, err := ContextSwitches(p.PID())
		return now > before && err == nil
	})
}

// A child of the test binary is not a descendant of a program, even if it holds
// the program's output. Between fork and exec, a child has all descriptors of
// the test binary open. Killing it would kill the program of another test.
func TestChildOfTheTestIsNoDescendant(t *testing.T) {
	p := Start(t, "pool")
	p.Expect("^ready$")
	out, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", p.PID()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{out}
	err = cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if left, err := p.Descendants(); len(left) > 0 || err != nil {
		t.Errorf("descendants: %v, %v; want none", left, err)
	}
}
