package reaper

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDescendants(t *testing.T) {
	// The list is read while processes come and go: it may be wrong, and then have
	// circles.
	all := []process{{pid: 9, parent: 4}, {pid: 1}, {pid: 2, parent: 1}, {pid: 3, parent: 1}, {pid: 4, parent: 2}, {pid: 5, parent: 3},
		{pid: 20, parent: 21}, {pid: 21, parent: 20}, {pid: 30, parent: 31}, {pid: 31, parent: 30}, {pid: 31, parent: 2}}
	for root, want := range map[int][]int{1: {2, 3, 4, 5, 9, 30, 31, 31}, 2: {4, 9, 30, 31, 31}, 4: {9}, 9: nil, 77: nil} {
		var got []int
		for _, p := range descendants(root, slices.Clone(all)) {
			got = append(got, p.pid)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("of %d: %v, want %v", root, got, want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a) b) S 5 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0"))
	f.Add([]byte("7 (cat) Z 5"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, stat []byte) {
		p, err := parseStat(7, stat)
		if err == nil && p.start == "" {
			t.Errorf("%q: %+v", stat, p)
		}
	})
	p, err := parseStat(7, []byte("7 (a) b) Z 5 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0"))
	if want := (process{pid: 7, parent: 5, start: "4711", zombie: true}); err != nil || p != want {
		f.Errorf("%+v, %v, want %+v", p, err, want)
	}
}

// A process that is not the one that was listed is not killed.
func TestKillListedProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := readProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if found := descendants(unix.Getpid(), processes()); !slices.Contains(found, p) {
		t.Errorf("%+v is not in %+v", p, found)
	}
	if found := listedChildren(); !slices.Contains(found, process{pid: p.pid, listed: true}) {
		t.Logf("this kernel does not list it: %+v", found)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for _, other := range []process{{pid: p.pid, parent: p.parent, start: p.start + "1"}, {pid: p.pid, parent: p.parent + 1, start: p.start}} {
		if err := other.kill(); err != unix.ESRCH {
			t.Errorf("%+v: %v", other, err)
		}
	}
	select {
	case err := <-exited:
		t.Errorf("it was killed: %v", err)
	case <-time.After(10 * time.Millisecond):
		if err := p.kill(); err != nil {
			t.Error(err)
		}
		if err := <-exited; fmt.Sprint(err) != "signal: killed" {
			t.Error(err)
		}
	}
	if err := p.kill(); err == nil {
		t.Errorf("%+v was killed twice", p)
	}
}

// A child whose first thread has exited, and others have not, shows as a zombie: it
// is not gone. The zombie of another process says nothing.
func TestZombieIsLeft(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	cmd.Process.Kill()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	p, err := readProcess(cmd.Process.Pid)
	if err != nil || !p.zombie {
		t.Fatalf("%+v, %v", p, err)
	}
	for pid, want := range map[int]int{unix.Getpid(): 1, unix.Getppid(): 0} {
		k := killer{pid: pid, killed: make(map[int]bool)}
		if left, fresh := k.killAll([]process{p}); left != want || fresh != (want == 1) {
			t.Errorf("descendant of %d: %d are left, new: %v", pid, left, fresh)
		}
	}
}
