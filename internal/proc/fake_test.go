package proc

import (
	"errors"
	"io"
	"os"
	"reflect"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeOwner returns a Fake and the notes that it sends.
func fakeOwner() (*Fake, chan Note) {
	notes := make(chan Note, 100)
	return NewFake(func(n Note) { notes <- n }), notes
}

// A script: the process ends a second after its SIGTERM, and the owner's patience is longer.
func TestFakeScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, notes := fakeOwner()
		f.OnStart = func(p *FakeProcess) {
			time.AfterFunc(time.Minute, func() { p.Say([]byte("ready")) })
		}
		f.OnSignal = func(p *FakeProcess, sig syscall.Signal) {
			if sig == syscall.SIGTERM {
				time.AfterFunc(time.Second, func() { p.Exit(Status{Code: 3}) })
			}
		}
		begin := time.Now()
		p, err := f.Start(7, Spec{Path: "worker", Control: 3, Dir: "/", SameGroup: true})
		if err != nil {
			t.Fatal(err)
		}
		if n, want := <-notes, (Note{7, Readable}); n != want || time.Since(begin) != time.Minute {
			t.Errorf("%+v after %v", n, time.Since(begin))
		}
		buf := make([]byte, 100)
		if n, err := p.Read(buf); string(buf[:n]) != "ready" || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
		if _, err := p.Read(buf); err != ErrWouldBlock {
			t.Error(err)
		}
		p.Signal(syscall.SIGTERM)
		if _, _, ok := p.Reap(); ok {
			t.Error("reaped before its end")
		}
		if got, want := []Note{<-notes, <-notes}, []Note{{7, Readable}, {7, Exited}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if time.Since(begin) != time.Minute+time.Second {
			t.Errorf("ended after %v", time.Since(begin))
		}
		if _, err := p.Read(buf); err != io.EOF {
			t.Error(err)
		}
		p.Signal(syscall.SIGKILL)
		if status, usage, ok := p.Reap(); status != (Status{Code: 3}) || usage == nil || !ok {
			t.Error(status, usage, ok)
		}
		started := f.Started()
		if len(started) != 1 || started[0].ID != 7 || started[0].Spec.Path != "worker" || started[0].Spec.Dir != "/" || !started[0].Spec.SameGroup {
			t.Errorf("%+v", started)
		}
		if got := started[0].Signals(); !reflect.DeepEqual(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v: one to a process that has ended counts", got)
		}
	})
}

func TestFakeNotes(t *testing.T) {
	f, notes := fakeOwner()
	p, _ := f.Start(1, Spec{Control: 3})
	fp := f.Started()[0]
	expect := func(want ...Note) {
		t.Helper()
		for _, w := range want {
			if len(notes) == 0 {
				t.Fatalf("no note %+v", w)
			}
			if n := <-notes; n != w {
				t.Fatalf("%+v, want %+v", n, w)
			}
		}
		if len(notes) > 0 {
			t.Fatalf("unexpected: %+v", <-notes)
		}
	}
	buf := make([]byte, 2)
	fp.Say([]byte("ab"))
	expect(Note{1, Readable})
	fp.Say([]byte("cd"))
	p.Read(buf)
	p.Read(buf)
	fp.Say([]byte("e"))
	expect()
	p.Read(buf)
	if _, err := p.Read(buf); err != ErrWouldBlock {
		t.Fatal(err)
	}
	p.Write([]byte("down"))
	p.WriteFile([]byte(", file"), 17)
	fp.Hangup()
	expect(Note{1, Readable})
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
	if got := string(fp.Written()); got != "down, file" || !reflect.DeepEqual(fp.Files(), []int{17}) {
		t.Errorf("written %q, with %v", got, fp.Files())
	}
	p.Signal(syscall.SIGKILL)
	fp.Exit(Status{Code: 1})
	expect(Note{1, Exited})
	if status, _, ok := p.Reap(); status != (Status{Signal: syscall.SIGKILL}) || !ok {
		t.Error(status, ok)
	}
}

func TestFakeFails(t *testing.T) {
	f, notes := fakeOwner()
	f.FailNext(2, syscall.EAGAIN)
	for range 2 {
		if p, err := f.Start(1, Spec{}); p != nil || err != syscall.EAGAIN {
			t.Errorf("%v, %v", p, err)
		}
	}
	p, err := f.Start(1, Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(nil); err != io.EOF {
		t.Errorf("read without a control socket: %v", err)
	}
	f.Close()
	f.Started()[0].Exit(Status{})
	if len(notes) > 0 {
		t.Errorf("a note after Close: %+v", <-notes)
	}
	if _, err := f.Start(2, Spec{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("start after Close: %v", err)
	}
}

func TestFakeGroup(t *testing.T) {
	f, notes := fakeOwner()
	var heard []syscall.Signal
	f.OnGroupSignal = func(_ *FakeProcess, sig syscall.Signal) { heard = append(heard, sig) }
	p, _ := f.Start(1, Spec{Group: true})
	fp := f.Started()[0]
	p.SignalGroup(syscall.SIGHUP) // to the leader alone: there are no others
	fp.Fork()
	p.Signal(syscall.SIGINT)
	p.SignalGroup(syscall.SIGTERM)
	fp.Exit(Status{})
	if n := <-notes; n != (Note{1, Exited}) || p.Rest() {
		t.Errorf("%+v; before it is reaped something is left: %v", n, p.Rest())
	}
	p.Reap()
	p.SignalGroup(syscall.SIGALRM)
	if !p.Rest() {
		t.Error("nothing is left")
	}
	p.SignalGroup(syscall.SIGKILL)
	p.SignalGroup(syscall.SIGKILL)
	if p.Rest() {
		t.Error("something is left that was killed")
	}
	if want := []syscall.Signal{syscall.SIGTERM, syscall.SIGALRM, syscall.SIGKILL}; !reflect.DeepEqual(heard, want) {
		t.Errorf("the others heard %v, want %v", heard, want)
	}
	if got, want := fp.Signals(), []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM}; !reflect.DeepEqual(got, want) {
		t.Errorf("the leader got %v, want %v", got, want)
	}
	if got := fp.GroupSignals(); len(got) != 4 || len(notes) > 0 {
		t.Errorf("the group got %v; %d notes", got, len(notes))
	}

	alone, _ := f.Start(2, Spec{})
	fp = f.Started()[1]
	fp.Fork()
	alone.SignalGroup(syscall.SIGKILL)
	alone.Reap()
	if alone.Rest() || len(fp.GroupSignals()) > 0 || fp.Looks() > 0 {
		t.Error("it has a group, though nobody asked")
	}
}
