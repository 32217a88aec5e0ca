package inherit

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who counts as a manager above the first in line.
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

// chain starts itself as its argument says: h as its successor, w as its worker, n as neither, by mistake. The last of the
// line tells how deep it is.
var chainProgram = program("chain", func(args []string) {
	_, role, err := Take()
	if err != nil {
		fmt.Println(err)
	}
	if args[0] == "" {
		depth, err := Depth()
		fmt.Println("role", role, "depth", depth, err)
		return
	}
	fds, err := socketpair()
	if err != nil {
		fmt.Println(err)
		return
	}
	marker := Marker{Manager: os.Getpid(), Generation: 1, Ordinal: 1, Stop: 15, Control: 3}.String()
	own := map[byte][]string{'h': {SuccessorEnv + "=" + marker}, 'w': {Env + "=" + marker}, 'n': nil}[args[0][0]]
	cmd := exec.Command("/proc/self/exe", args[0][1:])
	cmd.Env = Alter(programEnv("chain"), nil, own...)
	cmd.ExtraFiles = []*os.File{fds[1]}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
	fds[0].Close()
})

func socketpair() (files [2]*os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "socket "+strconv.Itoa(i))
	}
	return files, err
}

// What the processes themselves see, by no variable. This test's own process counts as a manager: it runs the program.
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
		p := start(t, self(t), chainProgram, []string{tt.line}, nil)
		if got, want := p.text(), fmt.Sprintf("role %d depth %d <nil>", tt.role, tt.want+1); got != want {
			t.Errorf("%q: %s, want %s", tt.line, got, want)
		}
	}
}

// A worker that has become a program without a marker: which, depends on the file that it was started from.
func TestRestarted(t *testing.T) {
	another := copied(t)
	b, err := OpenBinary(another)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tt := range []struct {
		path, env string
		from      *Binary
		want      bool
	}{
		{self(t), "", nil, true},
		{self(t), "", b, true}, // its manager's program, of which that one is the next
		{self(t), Env + "=x", nil, false},
		{another, "", nil, false},
		{another, "", b, true},
		{another, Env + "=x", b, false},
	} {
		p := start(t, tt.path, waitProgram, nil, []string{tt.env})
		p.expect("up")
		if got := Restarted(p.pid, tt.from); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
		p.end()
		if Restarted(p.pid, tt.from) {
			t.Errorf("%+v: also when it has ended", tt)
		}
	}
}

// A process chooses its own name and environment: neither makes another of it than it is.
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
			t.Errorf("%s=%q is found as %q, %t", name, value, got, ok)
		}
		if n, err := parseDepth(value); err == nil && n < 0 {
			t.Errorf("depth %q is read as %d", value, n)
		}
	})
}
