package proctest_test

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// newOwner returns a Table and the notes that it sends.
func newOwner() (*proctest.Table, chan proc.Note) {
	notes := make(chan proc.Note, 100)
	return proctest.NewTable(func(n proc.Note) { notes <- n }), notes
}

// expectNotes fails unless exactly the wanted notes were sent.
func expectNotes(t *testing.T, notes chan proc.Note, want ...proc.Note) {
	t.Helper()
	var got []proc.Note
	for len(notes) > 0 {
		got = append(got, <-notes)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("notes %+v, want %+v", got, want)
	}
}

// expectRead reads once and compares the result.
func expectRead(t *testing.T, p proc.Process, want string, wantErr error) {
	t.Helper()
	buf := make([]byte, 100)
	if n, err := p.Read(buf); string(buf[:n]) != want || err != wantErr {
		t.Errorf("read %q, %v; want %q, %v", buf[:n], err, want, wantErr)
	}
}

// newScripted returns an owner whose processes send "ready" after a minute and
// exit a second after SIGTERM.
func newScripted() (*proctest.Table, chan proc.Note) {
	table, notes := newOwner()
	table.OnStart = func(p *proctest.Process) {
		time.AfterFunc(time.Minute, func() { p.Send([]byte("ready")) })
	}
	table.OnSignal = func(p *proctest.Process, sig syscall.Signal) {
		if sig == syscall.SIGTERM {
			time.AfterFunc(time.Second, func() { p.Exit(proc.Status{Code: 3}) })
		}
	}
	return table, notes
}

func TestScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, notes := newScripted()
		began := time.Now()
		expectNext := func(kind proc.Kind, after time.Duration) {
			t.Helper()
			if n := <-notes; n != (proc.Note{ID: 7, Kind: kind}) || time.Since(began) != after {
				t.Errorf("%+v after %v, want kind %d after %v", n, time.Since(began), kind, after)
			}
		}
		p, err := table.Start(7, proc.Spec{Control: 3})
		if err != nil {
			t.Fatal(err)
		}
		expectNext(proc.Readable, time.Minute)
		expectRead(t, p, "ready", nil)
		expectRead(t, p, "", proc.ErrWouldBlock)
		p.Signal(syscall.SIGTERM)
		if _, _, ok := p.Reap(); ok {
			t.Error("reaped before its exit")
		}
		expectNext(proc.Readable, time.Minute+time.Second)
		expectNext(proc.Exited, time.Minute+time.Second)
		expectRead(t, p, "", io.EOF)
		p.Signal(syscall.SIGKILL)
		if status, usage, ok := p.Reap(); status != (proc.Status{Code: 3}) || usage == nil || !ok {
			t.Error(status, usage, ok)
		}
		if got := table.Started()[0].Signals(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v, including one to an exited process", got)
		}
	})
}

func TestStarted(t *testing.T) {
	table, _ := newOwner()
	table.Start(7, proc.Spec{Path: "worker", Dir: "/", SameGroup: true})
	started := table.Started()
	if len(started) != 1 || started[0].ID != 7 {
		t.Fatalf("%+v", started)
	}
	if spec := started[0].Spec; spec.Path != "worker" || spec.Dir != "/" || !spec.SameGroup {
		t.Errorf("%+v", spec)
	}
}

func TestNotes(t *testing.T) {
	table, notes := newOwner()
	p, _ := table.Start(1, proc.Spec{Control: 3})
	pretended := table.Started()[0]
	readable := proc.Note{ID: 1, Kind: proc.Readable}
	buf := make([]byte, 2)
	pretended.Send([]byte("ab"))
	expectNotes(t, notes, readable)
	pretended.Send([]byte("cd"))
	p.Read(buf)
	p.Read(buf)
	pretended.Send([]byte("e"))
	expectNotes(t, notes)
	p.Read(buf)
	if _, err := p.Read(buf); err != proc.ErrWouldBlock {
		t.Fatal(err)
	}
	p.Write([]byte("down"))
	p.WriteFile([]byte(", file"), 17)
	pretended.CloseControl()
	expectNotes(t, notes, readable)
	for range 2 {
		if _, err := p.Read(buf); err != io.EOF {
			t.Fatal(err)
		}
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if err := p.WriteFile([]byte("x"), 18); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if got := string(pretended.Written()); got != "down, file" || !slices.Equal(pretended.Files(), []int{17}) {
		t.Errorf("written %q, with %v", got, pretended.Files())
	}
	p.Signal(syscall.SIGKILL)
	pretended.Exit(proc.Status{Code: 1})
	expectNotes(t, notes, proc.Note{ID: 1, Kind: proc.Exited})
	if status, _, ok := p.Reap(); status != (proc.Status{Signal: syscall.SIGKILL}) || !ok {
		t.Error(status, ok)
	}
}

// As with a real process, data sent before the exit can be read until Reap.
func TestReadAfterExit(t *testing.T) {
	table, notes := newOwner()
	p, _ := table.Start(1, proc.Spec{Control: 3})
	pretended := table.Started()[0]
	pretended.Send([]byte("last"))
	pretended.Exit(proc.Status{})
	expectNotes(t, notes, proc.Note{ID: 1, Kind: proc.Readable}, proc.Note{ID: 1, Kind: proc.Exited})
	expectRead(t, p, "last", nil)
	p.Reap()
	expectRead(t, p, "", io.EOF)
}

func TestWatchExit(t *testing.T) {
	table, notes := newOwner()
	p, _ := table.Start(1, proc.Spec{})
	pretended := table.Started()[0]
	if p.Exiting() {
		t.Error("exiting from the start")
	}
	p.WatchExit()
	p.UnwatchExit()
	pretended.BeginExit()
	expectNotes(t, notes)
	p.WatchExit()
	pretended.BeginExit()
	expectNotes(t, notes, proc.Note{ID: 1, Kind: proc.Exiting})
	if !p.Exiting() {
		t.Error("not exiting")
	}
}

func TestStartFails(t *testing.T) {
	table, notes := newOwner()
	table.FailNext(2, syscall.EAGAIN)
	for range 2 {
		if p, err := table.Start(1, proc.Spec{}); p != nil || err != syscall.EAGAIN {
			t.Errorf("%v, %v", p, err)
		}
	}
	p, err := table.Start(1, proc.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(nil); err != io.EOF {
		t.Errorf("read without a control socket: %v", err)
	}
	table.Close()
	table.Started()[0].Exit(proc.Status{})
	if len(notes) > 0 {
		t.Errorf("note after Close: %+v", <-notes)
	}
	if _, err := table.Start(2, proc.Spec{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("start after Close: %v", err)
	}
}

func TestGroup(t *testing.T) {
	table, notes := newOwner()
	var received []syscall.Signal
	table.OnGroupSignal = func(_ *proctest.Process, sig syscall.Signal) { received = append(received, sig) }
	p, _ := table.Start(1, proc.Spec{Group: true})
	pretended := table.Started()[0]
	p.SignalGroup(syscall.SIGHUP) // only to the leader: the group has no other member
	pretended.Fork()
	p.Signal(syscall.SIGINT)
	p.SignalGroup(syscall.SIGTERM)
	pretended.Exit(proc.Status{})
	expectNotes(t, notes, proc.Note{ID: 1, Kind: proc.Exited})
	if p.HasLeftovers() {
		t.Error("leftovers before Reap")
	}
	p.Reap()
	p.SignalGroup(syscall.SIGALRM)
	if !p.HasLeftovers() {
		t.Error("no leftovers after Reap")
	}
	p.ReapLeftovers()
	if !p.HasLeftovers() || pretended.LeftoverReaps() != 1 {
		t.Errorf("leftovers %t after %d calls of ReapLeftovers", p.HasLeftovers(), pretended.LeftoverReaps())
	}
	p.SignalGroup(syscall.SIGKILL)
	p.SignalGroup(syscall.SIGKILL)
	if p.HasLeftovers() {
		t.Error("leftovers after SIGKILL")
	}
	if want := []syscall.Signal{syscall.SIGTERM, syscall.SIGALRM, syscall.SIGKILL}; !slices.Equal(received, want) {
		t.Errorf("the other processes received %v, want %v", received, want)
	}
	if got, want := pretended.Signals(), []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM}; !slices.Equal(got, want) {
		t.Errorf("the leader received %v, want %v", got, want)
	}
	if got := pretended.GroupSignals(); len(got) != 4 || len(notes) > 0 {
		t.Errorf("the group received %v; %d notes", got, len(notes))
	}
}

func TestLeftoversExit(t *testing.T) {
	table, _ := newOwner()
	p, _ := table.Start(1, proc.Spec{Group: true})
	pretended := table.Started()[0]
	pretended.Fork()
	pretended.Exit(proc.Status{})
	p.Reap()
	pretended.ExitForked()
	p.ReapLeftovers()
	if p.HasLeftovers() {
		t.Error("leftovers after their exit")
	}
}

func TestNoGroup(t *testing.T) {
	table, _ := newOwner()
	p, _ := table.Start(2, proc.Spec{})
	pretended := table.Started()[0]
	pretended.Fork()
	p.SignalGroup(syscall.SIGKILL)
	p.Reap()
	p.ReapLeftovers()
	if p.HasLeftovers() || len(pretended.GroupSignals()) > 0 || pretended.LeftoverReaps() > 0 {
		t.Error("a process without Spec.Group has a group")
	}
}

func TestInstall(t *testing.T) {
	var installed *proctest.Table
	t.Run("installed", func(t *testing.T) {
		proctest.Install(t, func(table *proctest.Table) { installed = table })
		if table := proc.NewTable(func(proc.Note) {}); table != proc.Table(installed) {
			t.Errorf("a table of type %T", table)
		}
	})
	table := proc.NewTable(func(proc.Note) {})
	defer table.Close()
	if _, ok := table.(*proctest.Table); ok {
		t.Error("still installed after the end of the test")
	}
}
