package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
	"github.com/prefork-go/prefork/ops/record"
	"github.com/prefork-go/prefork/preforktest"
)

// A full disk neither prevents Open nor hides the manager before it, and costs only the
// records that do not fit (39).
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "only root can mount a file system")
	}
	for _, scenario := range []string{"blocks", "inodes", "rotation"} {
		t.Run(scenario, func(t *testing.T) {
			p := preforktest.New(t, "full", t.TempDir(), scenario)
			p.Cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			p.Start()
			for line := p.Expect(`.*`)[0]; line != "done"; line = p.Expect(`.*`)[0] {
				t.Error(line)
			}
			p.Wait()
		})
	}
}

func init() { preforktest.Register("full", full) }

// full runs a scenario on a small file system of its own, and reports each
// thing that is wrong.
func full() {
	dir, scenario := os.Args[1], os.Args[2]
	if err := unix.Mount("prefork-test", dir, "tmpfs", 0, "size=64k,nr_inodes=10,mode=755"); err != nil {
		report("mount: %v", err)
		return
	}
	check := func(err error, format string, args ...any) {
		if err != nil {
			report("%s: %v", fmt.Sprintf(format, args...), err)
		}
	}
	path := filepath.Join(dir, "test.journal")
	ready := prefork.StateEvent{Worker: prefork.WorkerInfo{PID: 7, Ordinal: 1, State: prefork.StateReady}}
	write := func(j *Journal, n string) error { return j.Write(Record{Event: warning("n", n)}) }
	state := func(when string, pid, workers int) {
		if s, err := PreviousState(path); err != nil || s.PID != pid || len(s.Workers) != workers {
			report("PreviousState %s: %v, %v", when, s, err)
		}
	}
	switch scenario {
	case "blocks", "inodes":
		j, err := Open(path, Config{})
		check(err, "first Open")
		check(j.Write(Record{Event: ready}), "first Write")
		// As after SIGKILL, but the lock is free.
		check(j.lock.Release(), "release")
		if scenario == "inodes" {
			check(os.Rename(path, filepath.Join(dir, namesOf(path).rotatedName(moment, 1, record.ReasonSize))), "rename")
		}
		free := fill(dir, scenario)
		pad(path)
		j, err = Open(path, Config{})
		if err != nil {
			report("Open: %v", err)
			break
		}
		if s := j.Previous(); s.PID != os.Getpid() || len(s.Workers) != 1 {
			report("previous: %v", s)
		}
		state("while full", os.Getpid(), 1)
		var locked *LockedError
		if _, err := Open(path, Config{}); !errors.As(err, &locked) || scenario == "inodes" && locked.PID != os.Getpid() {
			report("second Open: %v", err) // the lock file has no room for the pid
		}
		for range 3 {
			if err := j.Write(Record{Event: ready}); !pidfile.DiskFull(err) {
				report("Write while full: %v", err)
			}
		}
		free()
		j.following, j.locking = attempt{}, attempt{} // time passes
		check(write(j, "1"), "Write after there is room")
		state("after there is room", os.Getpid(), 1)
		if pid := pidfile.Read(path + ".lock"); pid != os.Getpid() {
			report("pid %d in the lock file", pid)
		}
		check(j.Close(), "Close")
		var texts []string
		for rec, err := range Read(path) {
			check(err, "Read")
			texts = append(texts, rec.Event.String())
		}
		if all := strings.Join(texts, "|"); !strings.Contains(all, "could not be written") || !strings.Contains(all, "n: 1|manager") {
			report("%s", all)
		}
		if left, _ := filepath.Glob(path + ".lock"); len(left) > 0 {
			report("left: %q", left)
		}
	case "rotation":
		j, err := Open(path, Config{})
		check(err, "Open")
		check(write(j, "1"), "Write")
		free := fill(dir, "inodes")
		if err := j.Rotate(); !errors.Is(err, unix.ENOSPC) {
			report("Rotate while full: %v", err)
		}
		if names, _ := rotatedFiles(path); len(names) > 0 {
			report("rotated: %q", names)
		}
		check(write(j, "2"), "Write to the old file")
		free()
		check(j.Rotate(), "Rotate after there is room")
		if names, _ := rotatedFiles(path); len(names) != 1 {
			report("rotated: %q", names)
		}
		check(write(j, "3"), "Write to the new file")
		n := 0
		for _, err := range Read(path) {
			check(err, "Read")
			n++
		}
		if n != 5 {
			report("%d records", n)
		}
		check(j.Close(), "Close")
	}
	report("done")
}

// pad writes lines to the last byte of the last page of a file.
func pad(path string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return // not in this scenario
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteString(strings.Repeat("\n", os.Getpagesize()-int(info.Size())%os.Getpagesize()))
	}
	if err != nil {
		report("pad: %v", err)
	}
}

// fill uses up the file system, until the returned function is called.
func fill(dir, what string) (free func()) {
	var names []string
	for i := 0; ; i++ {
		names = append(names, filepath.Join(dir, fmt.Sprint("fill", i)))
		f, err := os.Create(names[i])
		if err == nil && what == "blocks" {
			_, err = f.Write(make([]byte, 1<<20))
		}
		f.Close()
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil || i > 100 {
			report("fill: %v", err)
			break
		}
	}
	return func() {
		for _, name := range names {
			os.Remove(name)
		}
	}
}
