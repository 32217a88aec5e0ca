package marker

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// managersAbove counts the managers above the first process in line.
func TestManagersAbove(t *testing.T) {
	manager := func(pid int) ancestor { return ancestor{pid: pid, ours: true} }
	successor := func(pid, of int) ancestor { return ancestor{pid: pid, ours: true, predecessor: of} }
	worker := func(pid int) ancestor { return ancestor{pid: pid, ours: true, worker: true} }
	below := func(a ancestor, reaper int) ancestor { a.reaper = reaper; return a }
	other := func(pid int) ancestor { return ancestor{pid: pid} }
	upgrades := []ancestor{}
	for pid := 100; pid > 1; pid-- {
		upgrades = append(upgrades, successor(pid, pid-1))
	}
	for name, tt := range map[string]struct {
		line []ancestor
		want int
	}{
		"by itself":                          {[]ancestor{manager(9), other(1)}, 0},
		"started by itself without a marker": {[]ancestor{manager(9), manager(8), manager(7), other(1)}, 2},
		"in a worker":                        {[]ancestor{manager(9), worker(8), manager(7), other(1)}, 1},
		"in the worker of a program of another file": {[]ancestor{manager(9), other(8), other(7), other(1)}, 0},
		"successor":                       {[]ancestor{successor(9, 8), manager(8), other(1)}, 0},
		"successor whose manager is gone": {[]ancestor{successor(9, 8), other(1)}, 0},
		"successor whose manager is gone, and which another manager has adopted": {[]ancestor{successor(9, 8), manager(7), other(1)}, 1},
		"successor with another between them":                                    {[]ancestor{successor(9, 8), other(10), manager(8), other(1)}, 1},
		"below a reaper":                                                         {[]ancestor{below(manager(9), 8), manager(8), other(1)}, 0},
		"below a guard":                                                          {[]ancestor{below(manager(9), 8), below(manager(8), 7), manager(7), other(1)}, 0},
		"in a worker below a reaper":                                             {[]ancestor{manager(9), worker(8), below(manager(7), 6), manager(6)}, 1},
		"successor below a reaper":                                               {[]ancestor{below(successor(9, 8), 7), below(manager(8), 7), manager(7)}, 0},
		"successor whose manager is gone, below a reaper":                        {[]ancestor{below(successor(9, 8), 7), manager(7)}, 0},
		"an orphan that its reaper has adopted":                                  {[]ancestor{manager(9), manager(1)}, 1},
		"upgrades in a row":                                                      {append(upgrades, manager(1)), 0},
		"upgrades in a row of a manager in a worker":                             {append(upgrades[:50:50], manager(50), worker(40), manager(30)), 1},
		"in a worker of a successor":                                             {[]ancestor{manager(9), worker(8), successor(7, 6), manager(6), other(1)}, 1},
		"started by a successor without a marker":                                {[]ancestor{manager(9), successor(8, 7), successor(7, 6), manager(6), other(1)}, 1},
		"successor of what a successor has started without a marker, and again": {
			[]ancestor{successor(9, 8), manager(8), successor(7, 6), manager(6), successor(5, 4), manager(4), other(1)}, 2},
	} {
		if got := managersAbove(tt.line); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func init() { preforktest.Register("chain", chainProgram) }

// chainProgram starts itself once for each letter of its argument: as its
// successor (h), its worker (w), or neither, by mistake (n). The last process
// prints its depth.
func chainProgram() {
	line := os.Args[1]
	_, role, err := Take()
	if err != nil {
		fmt.Println(err)
	}
	if line == "" {
		depth, err := Depth(isThisProgram)
		fmt.Println("role", role, "depth", depth, err)
		return
	}
	ours, theirs, err := socketpair()
	if err != nil {
		fmt.Println(err)
		return
	}
	marker := Marker{Manager: os.Getpid(), Generation: 1, Ordinal: 1, Stop: 15, Control: 3}.String()
	own := map[byte][]string{'h': {SuccessorEnv + "=" + marker}, 'w': {Env + "=" + marker}, 'n': nil}[line[0]]
	cmd := exec.Command("/proc/self/exe", line[1:])
	cmd.Env = ChildEnv(os.Environ(), nil, own...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
	ours.Close()
}

// Processes compute their depth without the variable. The process of this test
// runs the program, so it counts as a manager.
func TestDepthOfProcesses(t *testing.T) {
	for _, tt := range []struct {
		line string
		role Role
		want int
	}{
		{"", Ordinary, 0},
		{"n", Ordinary, 1},
		{"nn", Ordinary, 2},
		{"w", Worker, 1},
		{"wn", Ordinary, 1},
		{"h", Successor, 0},
		{strings.Repeat("h", 20), Successor, 0},
		{strings.Repeat("h", 10) + "wn", Ordinary, 1},
		{"hnn", Ordinary, 2},
		{"hnhn", Ordinary, 2},
	} {
		p := preforktest.Start(t, "chain", tt.line)
		if got, want := output(p), fmt.Sprintf("role %d depth %d <nil>", tt.role, tt.want+1); got != want {
			t.Errorf("%q: %s, want %s", tt.line, got, want)
		}
	}
}

func init() { preforktest.Register("wait", waitProgram) }

// waitProgram prints a line and waits for the end of its standard input.
func waitProgram() {
	fmt.Println("up")
	io.Copy(io.Discard, os.Stdin)
}

// IsMissing reports a worker that has executed a program without its marker.
func TestIsMissing(t *testing.T) {
	for env, want := range map[string]bool{"": true, Env + "=x": false, SuccessorEnv + "=x": true, "X" + Env + "=x": true} {
		p := newProgram(t, "wait", []string{env})
		in, err := p.Cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.Start().Expect("^up$")
		if got := IsMissing(p.PID()); got != want {
			t.Errorf("%q: %t", env, got)
		}
		in.Close()
		p.Wait()
		if IsMissing(p.PID()) {
			t.Errorf("%q: still true after the end of the process", env)
		}
	}
}

// isThisProgram reports whether process pid runs the test binary.
func isThisProgram(pid int) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(ours, theirs)
}

// A process that was started from the descriptor of its program's file closes that
// descriptor in Take.
func TestTakeOfProcessFromDescriptor(t *testing.T) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, control := sockets(t)
	_, other := sockets(t)
	for _, role := range []struct {
		env string
		n   Role
	}{{Env, Worker}, {SuccessorEnv, Successor}} {
		p := newProgram(t, "take", []string{role.env + "=" + aMarker(os.Getpid()).String()}, control, other, f)
		p.Cmd.Path = "/proc/self/fd/5"
		p.Start()
		first := fmt.Sprintf(`role %d, name "web", control 3, exe 0, sockets [{4 tcp :80 -1 true 0}], error <nil>`, role.n)
		if got, want := output(p), first+"\nvariables false false\n"+adopted; got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

// A process chooses its own name and environment. Neither can hide its parent or
// its variables.
func FuzzAncestor(f *testing.F) {
	f.Add("a) S 1 (", "PREFORK_DEPTH", "3")
	f.Add(")", "PREFORK_WORKER", "")
	f.Add("", "X", "\x00PREFORK_DEPTH=2")
	f.Fuzz(func(t *testing.T, comm, name, value string) {
		if len(comm) > 15 || strings.Contains(comm, "\x00") {
			return
		}
		if pid, err := parseParent([]byte("7 (" + comm + ") S 4711 7 7 0 -1")); pid != 4711 || err != nil {
			t.Errorf("name %q: parent %d, %v", comm, pid, err)
		}
		parseParent([]byte(comm))
		if strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") || name == "" {
			return
		}
		environ := []byte("A=1\x00" + name + "=" + value + "\x00B=2\x00")
		if got, ok := lookup(environ, name); !ok || got != value && name != "A" && name != "B" {
			t.Errorf("%s=%q: lookup returns %q, %t", name, value, got, ok)
		}
		if n, err := parseDepth(value); err == nil && n < 0 {
			t.Errorf("depth %q is parsed as %d", value, n)
		}
	})
}
